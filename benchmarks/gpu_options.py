"""What each choice of the CUDA path is worth: sweeps with one thing changed beside the engine as it is, in one run.

    python -m benchmarks.gpu_options

Rounds alternate; the ratio is the median of the rounds'. Wall-clock time, the device synchronised.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_quantization.nn.modules.tensor_quantizer import TensorQuantizer
from torch import nn

from benchmarks.gpu import network
from service.domain.layers import Variant
from tests.workers.backends.naive import torch_outputs
from tests.workers.backends.ranges import calibrated
from workers.backends import torch_cuda_graph
from workers.backends.protocol import Evaluated, OpenSettings
from workers.backends.torch_fake_quant import TorchBackend, TorchModel
from workers.backends.torch_session import ActivationQuantizer

Batches = list[dict[str, np.ndarray]]
ROUNDS = 3


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """The attribute replaced meanwhile."""
    old = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, old)


def unchanged(_: TorchModel) -> Any:
    """The engine as it is."""
    return nullcontext()


def by_calls(_: TorchModel) -> Any:
    """No CUDA graphs."""
    return patched(torch_cuda_graph, "MOST_SAMPLES", 0)


def graphs(_: TorchModel) -> Any:
    """CUDA graphs of any batch."""
    return patched(torch_cuda_graph, "MOST_SAMPLES", 2**20)


@contextmanager
def packages_quantizers(model: TorchModel) -> Iterator[None]:
    """The forward of pytorch-quantization, which asks the device about the range; no graph can hold it."""
    with by_calls(model), patched(ActivationQuantizer, "forward", TensorQuantizer.forward):
        yield


@contextmanager
def pageable(model: TorchModel) -> Iterator[None]:
    """Inputs and outputs through ordinary memory."""
    session: Any = model._session
    with (
        patched(session, "_tensor", lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(session._device)),
        patched(session, "_array", lambda leaf, _: leaf.cpu().numpy()),
    ):
        yield


@contextmanager
def channels_last(model: TorchModel) -> Iterator[None]:
    """Inputs and weights in torch.channels_last."""
    session: Any = model._session
    plain, tree = session._tensor, model._tree

    def last(array: np.ndarray) -> torch.Tensor:
        tensor: torch.Tensor = plain(array)
        return tensor.contiguous(memory_format=torch.channels_last)

    session._module.to(memory_format=torch.channels_last)
    with patched(session, "_tensor", last), patched(model, "_tree", session.tree()):
        yield
    session._module.to(memory_format=torch.contiguous_format)
    model._tree = tree


OPTIONS = (unchanged, by_calls, graphs, packages_quantizers, pageable, channels_last)


def opened(module: nn.Module, x: np.ndarray, *, free: bool) -> TorchModel:
    """The network on the device, with ranges from ``x``; ``free``: for any batch size."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = ({0: torch.export.Dim("batch", min=2, max=4096)},) if free else None
        example = torch.from_numpy(x[:2] if free else x)
        path = Path(folder) / "model.pt2"
        torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes), path)
        model = TorchBackend().open(path, OpenSettings(device="cuda:0"))
    assert isinstance(model, TorchModel)
    return calibrated(model, {model.facts.inputs[0].name: x})


def timed(work: Callable[[], Any]) -> float:
    """Seconds."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(title: str, model: TorchModel, batches: Batches, options: Any = OPTIONS, *, check: bool = True) -> None:
    """One line for each option: milliseconds a batch, ratio to the engine as it is, what became of the outputs."""
    variants = [Variant(name=each.id, int8=frozenset({each.id})) for each in model.facts.layers]
    few = variants[:: max(1, len(variants) // 8)]

    def sweep() -> list[float]:
        return [float(first(each).flat[0]) for each in model.evaluate(batches, variants)]

    def outputs(of: list[Variant]) -> dict[Any, Any]:
        return {(each.variant.name, each.batch): first(each) for each in model.evaluate(batches, of)}

    print(f"\n{title}, {len(batches)} batches, {len(variants)} layers", flush=True)
    times: dict[str, list[float]] = {each.__name__: [] for each in options}
    for _ in range(ROUNDS):
        for option in options:
            with option(model):
                times[option.__name__].append(timed(sweep))
    expected = outputs(few) if check else {}
    for option in options:
        seconds = times[option.__name__]
        ratio = statistics.median(one / base for one, base in zip(seconds, times["unchanged"], strict=True))
        line = f"  {option.__name__:20s} {1000 * statistics.median(seconds) / len(batches):9.2f} ms  {ratio:6.3f}"
        if check:
            with option(model):
                found, naive = outputs(few), torch_outputs(model._session, batches[-1:], few)
            last = {name: next(iter(each.values())) for (name, _), each in naive.items()}
            alone = {name: each for (name, batch), each in found.items() if batch == len(batches) - 1}
            line += f"  from it {apart(found, expected):.1e}, from the naive loop {apart(alone, last):.1e}"
        print(line, flush=True)


def first(evaluated: Evaluated) -> np.ndarray:
    """The first output."""
    assert evaluated.outputs is not None, evaluated.failure
    return next(iter(evaluated.outputs.values()))


def apart(found: dict[Any, Any], expected: dict[Any, Any]) -> float:
    """The largest difference, as a share of the largest output."""
    largest = max(float(np.abs(each).max()) for each in expected.values())
    return max(float(np.abs(found[key] - expected[key]).max()) for key in expected) / largest


def compiled(title: str, model: TorchModel, batch: dict[str, np.ndarray]) -> None:
    """torch.compile of a plain run in fp32 and with all layers in int8."""
    session: Any = model._session
    inputs = list(session.tensors(batch).values())
    for name, int8 in (("fp32", frozenset()), ("int8", frozenset(each.id for each in model.facts.layers))):
        session.select(int8)
        torch._dynamo.reset()
        fast = torch.compile(session._module, dynamic=False)
        with torch.inference_mode():
            made = timed(lambda fast=fast: fast(*inputs))
            gap = apart({0: fast(*inputs).cpu().numpy()}, {0: session._module(*inputs).cpu().numpy()})
            seconds, plain = often(fast, inputs), often(session._module, inputs)
        print(f"  compiled {name}: {1000 * seconds:.2f} ms, {seconds / plain:.2f} of plain calls", end="")
        print(f"; made in {made:.1f} s; outputs from theirs {gap:.1e}  ({title})", flush=True)


def often(run: Callable[..., Any], inputs: list[torch.Tensor]) -> float:
    """Seconds, the median of ten runs."""
    return statistics.median(timed(lambda: run(*inputs)) for _ in range(10))


SIZES = ((1, False), (8, False), (32, False), (64, False), (128, False), (8, True), (64, True), (256, True))
"""Batch sizes, and whether the model takes others too."""


def main() -> None:
    """Print the tables."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    rng = np.random.default_rng(0)
    for width, blocks, size in ((16, 27, 32), (64, 8, 56)):
        module = network(width, blocks)
        for count, free in SIZES:
            number = 16 if count <= 32 else 8 if count <= 128 else 2
            xs = [rng.standard_normal((count, 3, size, size)).astype(np.float32) for _ in range(number)]
            model = opened(module, xs[0], free=free)
            name = model.facts.inputs[0].name
            title = f"{blocks} blocks of {width}, {size} px, batch {count}{'' if free else ', fixed'}"
            compare(title, model, [{name: x} for x in xs], OPTIONS if free else OPTIONS[:-2])
            if free and count != 64:
                compiled(title, model, {name: xs[0]})
            torch.cuda.empty_cache()
    transfers(rng)


def transfers(rng: np.random.Generator) -> None:
    """Few layers on large inputs, and to large outputs."""
    body = [each for _ in range(4) for each in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
    ways = (unchanged, pageable)
    x = rng.standard_normal((256, 3, 224, 224)).astype(np.float32)
    classes = nn.Sequential(nn.Conv2d(3, 16, 7, stride=4), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = opened(classes.eval(), x[:64], free=True)
    compare("147 MiB of inputs", model, [{model.facts.inputs[0].name: x + shift} for shift in range(3)], ways)
    model = opened(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *body, nn.Conv2d(16, 21, 1)).eval(), x[:32], free=True)
    compare("129 MiB of outputs a variant", model, [{model.facts.inputs[0].name: x[:32]}] * 2, ways)


if __name__ == "__main__":
    main()
