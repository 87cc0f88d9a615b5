"""The peak memory of an exact sweep beside that of a plain fp32 pass, over ever more samples and ever more layers.

    python -m benchmarks.memory

Each figure comes from a process of its own: the most that was resident while the work ran, above what was resident
before it (Linux only: /proc/self/clear_refs forgets the peak of what went before, such as loading the model). Samples
are repeated where there are fewer. ONNX Runtime's sessions are shared by up to 256 MiB of what is held at a cut, which
all of these numbers of samples reach or nearly so.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine import opened, plain, use_one_thread
from benchmarks.networks import Network, batches_of, here, table_of
from service.domain.settings import BackendName, SweepMode

BY_SAMPLES = ("cifar10_resnet20", 10, (1024, 2048, 4096, 8192))
BY_LAYERS = ("cifar10_resnet56", 128, (10, 20, 40, 80))
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
    stored = network.samples(samples)
    batches = batches_of(model, np.resize(stored, (samples, *stored.shape[1:])), BATCH)
    variants = table_of(model, SweepMode.ONE_ON)[:layers]

    def sweep() -> None:
        for _ in model.evaluate(batches, variants):
            pass

    alone = peak_of(plain(model, batches))
    return alone, peak_of(sweep)


def main() -> None:
    """Print a line for each backend and each thing that grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=4, metavar=("NETWORK", "BACKEND", "SAMPLES", "LAYERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    use_one_thread()
    networks = {each.name: each for each in here()}
    if arguments.one:
        name, backend, samples, layers = arguments.one
        print(*peaks(networks[name], BackendName(backend), int(samples), int(layers)))
        return
    for backend in (BackendName.TORCH, BackendName.ONNXRUNTIME):
        name, fixed, growing = BY_SAMPLES
        rows = [(name, samples, fixed) for samples in growing]
        name, fixed, growing = BY_LAYERS
        rows += [(name, fixed, layers) for layers in growing]
        for name, samples, layers in rows:
            if name not in networks:
                continue
            call = [sys.executable, "-m", "benchmarks.memory", "--one", name, backend, str(samples), str(layers)]
            done = subprocess.run(call, capture_output=True, text=True, check=True)
            alone, sweep = (float(each) for each in done.stdout.split()[-2:])
            print(
                f"{name} {backend:11s} batch {BATCH} samples {samples:5d} layers {layers:3d}: "
                f"plain pass {alone:5.0f} MiB, sweep {sweep:5.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
