"""The exact sweep beside the naive loop, in fp32 evaluations of the same samples, in one run.

    python -m benchmarks.engine [--samples 256]

CPU time of one thread; every ratio is made of times taken within the same minute. "suffixes" is the share of an fp32
evaluation that comes at or after a layer, measured node by node, on average: what a layer costs where all that lies
before it is shared and nothing else.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from benchmarks.networks import Network, batches_of, calibrate, here, one_on
from tests.workers.backends.naive import torch_outputs
from workers.backends.protocol import OpenSettings
from workers.backends.torch_fake_quant import TorchBackend, TorchModel
from workers.backends.torch_session import TorchSession

HEADER = f"{'network':18s} {'L':>4s} {'batch':>5s} {'naive/L':>8s} {'exact/L':>8s} {'suffixes/L':>10s} {'outputs':>24s}"


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time that ``work`` took, and what it gave."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def opened(network: Network) -> TorchModel:
    """The network with its ranges."""
    model = TorchBackend().open(network.pt2, OpenSettings())
    assert isinstance(model, TorchModel)
    calibrate(model, network.calibration_samples(64))
    return model


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


def suffix_share(session: TorchSession, batches: list[Any]) -> float:
    """The mean over the layers of the share of an fp32 evaluation that comes at or after the layer."""
    session.select(frozenset())
    watch = Stopwatch(session._module)
    for batch in batches:
        session._outputs(watch, batch)
    order, total = list(watch.seconds), sum(watch.seconds.values())
    shares = []
    for layer in session.facts.layers:
        first = next(index for index, node in enumerate(order) if session.layer_of.get(node) == layer.id)
        shares.append(sum(watch.seconds[node] for node in order[first:]) / total)
    return float(np.mean(shares))


def compare(network: Network, size: int, samples: int) -> None:
    """Print one line of the table."""
    model = opened(network)
    inputs, _ = network.samples(samples)
    batches, variants = batches_of(model, inputs, size), one_on(model)
    session = model._session

    def fp32() -> None:
        session.select(frozenset())
        for batch in batches:
            session.run(batch)

    def exact() -> dict[Any, Any]:
        return {(each.variant.name, each.batch): each.outputs for each in model.evaluate(batches, variants)}

    fp32()
    exact()
    before = cpu_seconds(fp32)[0]
    slow, expected = cpu_seconds(lambda: torch_outputs(session, batches, variants))
    middle = cpu_seconds(fp32)[0]
    fast, found = cpu_seconds(exact)
    one = (before + middle + cpu_seconds(fp32)[0]) / 3
    worst = 0.0
    for key, outputs in expected.items():
        for name, values in outputs.items():
            worst = max(worst, float(np.abs(found[key][name] - values).max() / np.abs(values).max()))
    same = "identical" if worst == 0.0 else f"within {worst:.0e} relative"
    count = len(variants)
    suffixes = suffix_share(session, batches)
    costs = f"{slow / one / count:8.2f} {fast / one / count:8.2f} {suffixes:10.2f}"
    print(f"{network.name:18s} {count:4d} {size:5d} {costs} {same:>24s}", flush=True)


def memory(network: Network) -> None:
    """Print the peak memory of exact sweeps over ever more samples, and ever more layers, each in its own process."""
    for what, values in (("samples", (128, 256, 512, 1024)), ("layers", (5, 10, 20, 40))):
        peaks = []
        for value in values:
            call = [sys.executable, "-m", "benchmarks.engine", "--peak", network.name, what, str(value)]
            peaks.append(int(subprocess.run(call, capture_output=True, text=True, check=True).stdout))
        listed = ", ".join(f"{value}: +{peak / 1024:.0f} MiB" for value, peak in zip(values, peaks, strict=True))
        print(f"{network.name}, peak memory above a plain fp32 pass, by {what}: {listed}", flush=True)


def peak(network: Network, what: str, value: int) -> None:
    """Print by how many KiB an exact sweep raises the process's peak memory over that of a plain pass."""
    model = opened(network)
    samples = value if what == "samples" else 128
    batches = batches_of(model, network.samples(samples)[0], 64)
    variants = one_on(model)[: value if what == "layers" else 20]
    model._session.select(frozenset())
    for batch in batches:
        model._session.run(batch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in model.evaluate(batches, variants):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--peak", nargs=3, metavar=("NETWORK", "WHAT", "VALUE"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    networks = here()
    if arguments.peak:
        name, what, value = arguments.peak
        peak(next(each for each in networks if each.name == name), what, int(value))
        return
    print(HEADER)
    for network in networks:
        for size in (8, 128):
            compare(network, size, min(arguments.samples, 8 * size))
    for network in networks:
        if network.name == "cifar10_resnet56":
            memory(network)


if __name__ == "__main__":
    main()
