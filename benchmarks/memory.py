"""The peak memory of an exact sweep beside that of a plain fp32 pass, over ever more samples and ever more layers.

    python -m benchmarks.memory

Each figure comes from a process of its own: the most that was resident while the work ran, above what was resident
before it (Linux only: /proc/self/clear_refs forgets the peak of what went before, such as loading the model).
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.engine import opened, plain, use_one_thread
from benchmarks.networks import Network, batches_of, here, table_of
from service.domain.settings import BackendName, SweepMode

NETWORK = "cifar10_resnet56"
SAMPLES = (128, 256, 512, 1024)
LAYERS = (10, 20, 40, 80)
BATCH = 64


def mebibytes(field: str) -> float:
    """A line of the process's status: VmRSS, what is resident, or VmHWM, the most that was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak_of(work: Callable[[], Any]) -> float:
    """By how many MiB the work raises what is resident, at its most."""
    Path("/proc/self/clear_refs").write_text("5")
    before = mebibytes("VmRSS")
    work()
    return mebibytes("VmHWM") - before


def peaks(network: Network, backend: BackendName, samples: int, layers: int) -> tuple[float, float]:
    """Of a plain pass, and of a sweep with so many layers in the table."""
    model = opened(network, backend)
    batches = batches_of(model, network.samples(samples), BATCH)
    variants = table_of(model, SweepMode.ONE_ON)[:layers]

    def sweep() -> None:
        for _ in model.evaluate(batches, variants):
            pass

    alone = peak_of(plain(model, batches))
    return alone, peak_of(sweep)


def main() -> None:
    """Print a line for each backend and each thing that grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, metavar=("BACKEND", "SAMPLES", "LAYERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    use_one_thread()
    network = next((each for each in here() if each.name == NETWORK), None)
    if network is None:
        return
    if arguments.one:
        backend, samples, layers = arguments.one
        print(*peaks(network, BackendName(backend), int(samples), int(layers)))
        return
    for backend in (BackendName.TORCH, BackendName.ONNXRUNTIME):
        by_samples = [(each, LAYERS[1]) for each in SAMPLES]
        by_layers = [(SAMPLES[0], each) for each in LAYERS]
        for samples, layers in dict.fromkeys([*by_samples, *by_layers]):
            call = [sys.executable, "-m", "benchmarks.memory", "--one", backend, str(samples), str(layers)]
            done = subprocess.run(call, capture_output=True, text=True, check=True)
            alone, sweep = (float(each) for each in done.stdout.split()[-2:])
            print(
                f"{NETWORK} {backend:11s} batch {BATCH} samples {samples:5d} layers {layers:3d}: "
                f"plain pass {alone:5.0f} MiB, sweep {sweep:5.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
