"""Our own exact sweep and its probe on the tools' terms: the same images, batches and clock.

Ranges come from the calibration set, as they do for the others, and are not timed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.engine import opened, plain
from benchmarks.networks import Network
from benchmarks.peers.measure import BATCH, Plain, Row, Task, cpu_seconds, task
from benchmarks.probe import measured
from service import __version__
from service.domain.settings import BackendName
from tests.workers.backends.ranges import calibrated
from workers.backends.protocol import Tensors
from workers.backends.torch_fake_quant import TorchModel
from workers.data.binding import Batch
from workers.engine.probe import estimates
from workers.engine.probe_settings import ProbeSettings

MEASURES = {"mse": "output MSE", "kl": "KL"}

Table = Mapping[str, Mapping[str, float]]
"""Layer's identifier → measure → its mean over the images."""


def ready(files: Task) -> TorchModel:
    """The program with its ranges."""
    network = Network("", files.pt2, files.onnx, files.evaluation, files.calibration)
    model = opened(network, BackendName.TORCH)
    assert isinstance(model, TorchModel)
    return calibrated(model, {model.facts.inputs[0].name: np.concatenate(files.calibration_inputs())})


def exact(model: TorchModel, batches: list[Tensors], reference: Any) -> Table:
    """Each layer alone in int8, by the variant tree."""
    layers = [each.id for each in model.facts.layers]
    found = measured(model, batches, reference, [frozenset({each}) for each in layers])
    return {
        layer: {measure: float(each[measure].mean()) for measure in MEASURES}
        for layer, each in zip(layers, found, strict=True)
    }


def probed(model: TorchModel, batches: list[Tensors]) -> Table:
    """Each layer by one random direction an image."""
    name = model.facts.inputs[0].name
    parts = [Batch(each, None, BATCH * index + np.arange(len(each[name]))) for index, each in enumerate(batches)]
    found = estimates(model.probe(parts, ProbeSettings(model.facts.outputs[0].name)))
    values = {layer: {measure: each[measure].value for measure in MEASURES} for layer, each in found.items()}
    return {
        layer: {measure: value for measure, value in each.items() if value is not None}
        for layer, each in values.items()
    }


def main() -> None:
    """Four rows: the measures of an exact sweep, and those of a probe; the two of a sweep share its cost."""
    files = task()
    torch.set_num_threads(1)
    model = ready(files)
    batches: list[Tensors] = [{model.facts.inputs[0].name: each} for each in files.inputs()]
    reference = np.concatenate(plain(model, batches)())
    names = {each.id: each.name for each in model.facts.layers if each.weight is not None}
    sweeps: dict[str, Callable[[], Table]] = {
        "exact, one on": lambda: exact(model, batches, reference),
        "probe": lambda: probed(model, batches),
    }
    for sweep, work in sweeps.items():
        fp32 = Plain(plain(model, batches))
        fp32.take()
        spent, table = cpu_seconds(work)
        fp32.evaluate = plain(model, batches)  # the sweep left other layers selected
        fp32.take()
        for measure, words in MEASURES.items():
            Row(
                tool="quantsieve",
                version=f"{__version__}, torch {torch.__version__}",
                measured=f"{sweep}, {words}",
                layers=len(table),
                evaluations=spent / fp32.seconds,
                scores={name: table[layer][measure] for layer, name in names.items()},
            ).show()


if __name__ == "__main__":
    main()
