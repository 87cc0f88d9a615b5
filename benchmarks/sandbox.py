"""A sweep's own steps with the model in a sandbox and in this process, in turn: what the channel costs.

``python -m benchmarks.sandbox``: the digits network in ONNX Runtime, all layers one by one on 256 samples.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from service.domain.layers import Variant, controls
from service.domain.settings import BackendName
from service.settings import Settings
from workers.backends.protocol import OpenSettings
from workers.backends.registry import backend
from workers.sandbox.model import open_sandboxed_model
from workers.sandbox.policy import Policy
from workers.sandbox.sandbox import sandbox

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "digits"
ROUNDS, SAMPLES, BATCH = 7, 256, 64


def main() -> None:
    """Print medians and their ratio for each step."""
    path, name = FOLDER / "digits.onnx", BackendName.ONNXRUNTIME
    own = sandbox(Policy.of(Settings()))
    open_sandboxed_model(own, name, path, OpenSettings())  # the template loads the runtime
    openers: dict[str, Callable[[], Any]] = {
        "in a sandbox": lambda: open_sandboxed_model(own, name, path, OpenSettings()),
        "in the process": lambda: backend(name).open(path, OpenSettings()),
    }
    opened = {key: each() for key, each in openers.items()}
    for each in opened.values():
        each.set_amax({edge: 1.0 for layer in each.facts.layers for edge in layer.activations})
        _evaluate(each)
    tell("open", in_turn(openers))
    tell("all layers", in_turn({key: lambda each=each: _evaluate(each) for key, each in opened.items()}))


def _evaluate(model: Any) -> None:
    x = np.load(FOLDER / "eval.npz")["inputs"][:SAMPLES].astype(np.float32)
    batches = [{model.facts.inputs[0].name: x[start : start + BATCH]} for start in range(0, SAMPLES, BATCH)]
    layers = [each.id for each in model.facts.layers]
    variants = [*controls(layers), *(Variant(name=f"layer:{each}", int8=frozenset({each})) for each in layers)]
    for done in model.evaluate(batches, variants):
        assert done.outputs is not None


def in_turn(runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each, in turn."""
    found: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(ROUNDS):
        for key, run in runs.items():
            begun = time.perf_counter()
            run()
            found[key].append(time.perf_counter() - begun)
    return found


def tell(step: str, seconds: dict[str, list[float]]) -> None:
    """One line."""
    medians = {key: statistics.median(each) for key, each in seconds.items()}
    ratio = medians["in a sandbox"] / medians["in the process"]
    least = min(seconds["in a sandbox"]) / min(seconds["in the process"])
    shown = ", ".join(f"{key} {value * 1e3:.1f} ms" for key, value in medians.items())
    print(f"{step}: {shown}, ratio {ratio:.3f}; of the least {least:.3f}")


if __name__ == "__main__":
    main()
