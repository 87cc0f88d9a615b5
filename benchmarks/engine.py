"""The exact sweep beside the naive loop, in fp32 evaluations of the same samples, in one run.

    python -m benchmarks.engine              # the table
    python -m benchmarks.engine digits       # of one network

CPU time of one thread; the three times of a row are taken one after another. "naive" runs the whole graph for each
layer; sessions of ONNX Runtime are built within the time, there and in "exact". "suffixes" is the share of an fp32
evaluation that comes at or after a layer, measured node by node in torch, on average: what a layer costs where all
that lies before it is shared and nothing else. "outputs" is the largest difference of a layer's outputs from those of
the naive loop, root mean square over the samples against that of the outputs; "MSE" that of its output MSE.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from benchmarks.networks import Network, batches_of, here, table_of
from service.domain.layers import Variant
from service.domain.settings import BackendName, SweepMode
from tests.workers.backends.naive import run, torch_outputs
from tests.workers.backends.ranges import calibrated
from workers.backends.onnxruntime import OnnxModel, OnnxRuntimeBackend
from workers.backends.protocol import OpenedModel, OpenSettings, Tensors
from workers.backends.torch_fake_quant import TorchBackend, TorchModel
from workers.backends.torch_session import TorchSession

Outputs = dict[tuple[str, int], Any]
COLUMNS = (
    f"{'network':16s} {'backend':11s} {'mode':7s} {'L':>4s} {'batch':>5s} {'samples':>7s} "
    f"{'naive/L':>7s} {'exact/L':>7s} {'suffixes':>8s} {'outputs':>8s} {'MSE':>8s}"
)
CALIBRATION_SAMPLES = 16


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time that ``work`` took, and what it gave."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def opened(network: Network, backend: BackendName, **settings: Any) -> TorchModel | OnnxModel:
    """The network with its ranges."""
    if backend is BackendName.TORCH:
        model: OpenedModel = TorchBackend().open(network.pt2, OpenSettings(**settings))
    else:
        model = OnnxRuntimeBackend().open(network.onnx, OpenSettings(**settings))
    assert isinstance(model, TorchModel | OnnxModel)
    return calibrated(model, {model.facts.inputs[0].name: network.calibration_samples(CALIBRATION_SAMPLES)})


class Stopwatch(fx.Interpreter):
    """Adds up the CPU time of each node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seconds: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run and time one node."""
        start = time.process_time_ns()
        result = super().run_node(n)
        self.seconds[n] = self.seconds.get(n, 0.0) + (time.process_time_ns() - start) / 1e9
        return result


def suffix_share(session: TorchSession, batches: Sequence[Tensors]) -> float:
    """The mean over the layers of the share of an fp32 evaluation that comes at or after the layer."""
    session.select(frozenset())
    watch = Stopwatch(session._module)
    for batch in batches:
        session.interpret(watch, batch)
    order, total = list(watch.seconds), sum(watch.seconds.values())
    shares = []
    for layer in session.facts.layers:
        first = next(index for index, node in enumerate(order) if session.layer_of.get(node) == layer.id)
        shares.append(sum(watch.seconds[node] for node in order[first:]) / total)
    return float(np.mean(shares))


def evaluated(model: OpenedModel, batches: Sequence[Tensors], variants: Sequence[Variant]) -> Outputs:
    """(variant's name, batch) → the first output."""
    found: Outputs = {}
    for each in model.evaluate(batches, variants):
        assert each.outputs is not None, each.failure
        found[each.variant.name, each.batch] = next(iter(each.outputs.values()))
    return found


def plain(model: TorchModel | OnnxModel, batches: Sequence[Tensors]) -> Callable[[], list[Any]]:
    """What runs the batches in fp32, one after another, and gives their first outputs."""
    if isinstance(model, TorchModel):
        model._session.select(frozenset())
        return lambda: [next(iter(run(model._session, batch).values())) for batch in batches]
    session = model.piece_session(model._program.skeleton, frozenset())
    return lambda: [session.run(None, batch)[0] for batch in batches]


def naive(
    network: Network, model: TorchModel | OnnxModel, batches: Sequence[Tensors], variants: Sequence[Variant]
) -> Callable[[], Outputs]:
    """What runs the whole graph for each variant."""
    if isinstance(model, OnnxModel):
        whole = opened(network, BackendName.ONNXRUNTIME, segments=1)
        return lambda: evaluated(whole, batches, variants)
    session = model._session
    return lambda: {
        key: next(iter(outputs.values())) for key, outputs in torch_outputs(session, batches, variants).items()
    }


def compare(network: Network, backend: BackendName, mode: SweepMode, size: int, samples: int) -> None:
    """Print one row of the table."""
    model = opened(network, backend)
    batches, variants = batches_of(model, network.samples(samples), size), table_of(model, mode)
    whole = naive(network, model, batches, variants)
    plain(model, batches)()
    evaluated(model, batches, variants[:1])
    first, reference = cpu_seconds(plain(model, batches))
    slow, expected = cpu_seconds(whole)
    second, _ = cpu_seconds(plain(model, batches))
    fast, found = cpu_seconds(lambda: evaluated(model, batches, variants))
    third, _ = cpu_seconds(plain(model, batches))
    one, count = (first + second + third) / 3, len(variants)
    share = f"{suffix_share(model._session, batches):8.2f}" if isinstance(model, TorchModel) else f"{'':8s}"
    outputs, errors = differences(found, expected, reference, variants)
    held = sum(len(next(iter(batch.values()))) for batch in batches)
    print(
        f"{network.name:16s} {backend:11s} {mode:7s} {count:4d} {size:5d} {held:7d} "
        f"{slow / one / count:7.2f} {fast / one / count:7.2f} {share} {outputs:8.0e} {errors:8.0e}",
        flush=True,
    )


def differences(
    found: Outputs, expected: Outputs, reference: Sequence[Any], variants: Sequence[Variant]
) -> tuple[float, float]:
    """The largest over the variants, relative: of the outputs (root mean square), and of the output MSE."""
    outputs, errors = [0.0], [0.0]
    fp32 = np.concatenate(list(reference))
    for each in variants:
        ours, theirs = (
            np.concatenate([held[each.name, index] for index in range(len(reference))]) for held in (found, expected)
        )
        outputs.append(float(np.sqrt(((ours - theirs) ** 2).mean() / (theirs**2).mean())))
        mse = ((theirs - fp32) ** 2).mean()
        if mse > 0:
            errors.append(abs(float(((ours - fp32) ** 2).mean() / mse) - 1))
    return max(outputs), max(errors)


def use_one_thread() -> None:
    """Of a CPU, for all that runs from here on."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # or sweeps would run on a GPU, beside plain passes that do not
    warnings.simplefilter("ignore", FutureWarning)  # of torch's own loader
    torch.set_num_threads(1)
    # ONNX Runtime's threads are as many as the processors that the process may use
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", help="only this one")
    arguments = parser.parse_args()
    use_one_thread()
    networks = [each for each in here() if arguments.network in (None, each.name)]
    print(f"torch {torch.__version__}, {os.cpu_count()} processors, one thread\n{COLUMNS}")
    for network in networks:
        for backend, size, samples in (
            (BackendName.TORCH, 8, 64),
            (BackendName.TORCH, 128, 128),
            (BackendName.ONNXRUNTIME, 64, 128),
        ):
            compare(network, backend, SweepMode.ONE_ON, size, samples)
        if network.name == "cifar10_resnet20":
            for backend in (BackendName.TORCH, BackendName.ONNXRUNTIME):
                compare(network, backend, SweepMode.ONE_OFF, 64, 128)


if __name__ == "__main__":
    main()
