"""What it costs that freed memory goes back to the system: a sweep with glibc's own setting, and with the memory kept.

    python -m benchmarks.kept_memory cifar10_resnet20 1024     # a network, and samples in one batch

Each row is a process of its own with one thread: the exact one-on sweep and its naive loop (``benchmarks.engine``);
CPU seconds of the process, of which the system's, and the most that was resident.
"""

import argparse
import os
import resource
import subprocess
import sys

from benchmarks import engine
from benchmarks.networks import here
from service.domain.settings import BackendName, SweepMode
from workers.backends import torch_session

WAYS = ("given back", "kept")


def main() -> None:
    """Print both rows, or do the work of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("batch", type=int)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way is None:
        for way in WAYS:
            print(f"{way}:", flush=True)
            subprocess.run([sys.executable, "-m", "benchmarks.kept_memory", *sys.argv[1:], "--way", way], check=True)
        return
    engine.use_one_thread()
    if asked.way == WAYS[0]:
        torch_session.keep_freed_memory = lambda: None
    network = next(each for each in here() if each.name == asked.network)
    engine.compare(network, BackendName.TORCH, SweepMode.ONE_ON, asked.batch, asked.batch)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{used.ru_utime + used.ru_stime:.0f} s of CPU, {used.ru_stime:.1f} s of it the system's", end=", ")
    print(f"{used.ru_maxrss / 1024:.0f} MiB resident at most, of {os.cpu_count()} processors one")


if __name__ == "__main__":
    main()
