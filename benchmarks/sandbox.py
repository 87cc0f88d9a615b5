"""What sandboxes cost: CPU time of whole sweeps, of worker and sandboxes together, against the same in one process.

``python -m benchmarks.sandbox [--samples 512] [--backend onnxruntime] [--rounds 1]``: ResNet-20, every layer one by
one, from upload to report. Each sweep has a process of its own, which pays for every import; they take turns.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from service.domain.settings import BackendName
from tests.real_data import RESNET20
from tests.workers.in_process import unconfined
from tests.workers.installation import Installation
from workers.capabilities import PUBLISHED, probe_in_child, to_document
from workers.sandbox.sandbox import sandbox
from workers.sweep import job

WAYS = ("in sandboxes", "in the process")


def main() -> None:
    """Print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--backend", type=BackendName, default=BackendName.ONNXRUNTIME)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--way", choices=WAYS)
    asked = parser.parse_args()
    if asked.way is not None:
        print(f"cpu {_sweep(asked.backend, asked.samples, confined=asked.way == WAYS[0])}")
        return
    # as the first process of a worker does for the others
    environment = os.environ | {PUBLISHED: json.dumps([to_document(each) for each in probe_in_child()])}
    seconds: dict[str, list[float]] = {each: [] for each in WAYS}
    for _ in range(asked.rounds):
        for way, found in seconds.items():
            command = [sys.executable, "-m", "benchmarks.sandbox", *sys.argv[1:], "--way", way]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            found.append(float(told.rpartition("cpu ")[2]))
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    shown = ", ".join(f"{way} {value:.1f} s" for way, value in medians.items())
    print(
        f"{asked.backend}, {asked.samples} samples: {shown} of CPU, ratio {medians[WAYS[0]] / medians[WAYS[1]]:.3f} "
        f"({asked.rounds} rounds)"
    )


def _sweep(backend: BackendName, samples: int, *, confined: bool) -> float:
    """CPU seconds of this process and all that it started, until the sweep is over."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.nullcontext() if confined else unconfined(Path(folder)),
    ):
        worker = Installation.at(Path(folder) / "data")
        worker.context.database.migrate()
        sweep_id = worker.sweep(
            model=worker.model(RESNET20.file(backend).read_bytes(), "pt2" if backend is BackendName.TORCH else "onnx"),
            dataset=worker.dataset(RESNET20.evaluation.read_bytes()),
            backend=backend,
            samples=samples,
            shard_size=None,
            budget=None,
        )
        worker.run_until()
        assert worker.state(sweep_id) == "succeeded", worker.row(sweep_id).problem
        job._open_model.cache_clear()
        job._open_dataset.cache_clear()
        if confined:
            own = sandbox(worker.context.sandbox.policy)
            own.end(0)  # its answer comes when the sandboxes that were given up have ended: only then they are counted
            own._control.close()
            own._process.wait()
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
