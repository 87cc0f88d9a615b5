"""What every script here measures with: the same images, the same clock, one way to print a row.

Needs nothing but numpy, so that it runs in each tool's own environment.
"""

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROW = "ROW "
"""What a line of the output that is a row of the table begins with."""

BATCH = 128


@dataclass(frozen=True)
class Task:
    """The files that the driver names; ``pt2`` and ``onnx`` are the same network, ``samples`` of the images count."""

    pt2: Path
    onnx: Path
    evaluation: Path
    calibration: Path
    samples: int

    def arguments(self) -> list[str]:
        """The command line that ``task`` reads back."""
        return [text for name, value in asdict(self).items() for text in (f"--{name}", str(value))]

    def inputs(self) -> list[Any]:
        """Batches (up to 128, 3, 32, 32) float32, normalized."""
        return self._batches(self.evaluation, "inputs")

    def labels(self) -> list[Any]:
        """Batches (up to 128,) int64."""
        return self._batches(self.evaluation, "labels")

    def calibration_inputs(self) -> list[Any]:
        """Batches like ``inputs``, of the disjoint calibration set."""
        return self._batches(self.calibration, "inputs")

    def _batches(self, file: Path, array: str) -> list[Any]:
        with np.load(file) as held:
            found = held[array][: self.samples]
        return [found[start : start + BATCH] for start in range(0, len(found), BATCH)]


@dataclass(frozen=True)
class Row:
    """What one sweep cost, in plain fp32 evaluations of the same images by the same runtime in the same process.

    ``scores``: name of a layer with weights → how sensitive the tool takes it to be, the larger the more. ``layers``
    counts all that the tool scored, additions and groups of layers among them.
    """

    tool: str
    version: str
    measured: str
    layers: int
    evaluations: float
    scores: Mapping[str, float]

    def show(self) -> None:
        """Print it for the driver."""
        print(ROW + json.dumps(asdict(self)), flush=True)


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of this process, all threads, that ``work`` took, and what it gave."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


@dataclass
class Plain:
    """A plain fp32 evaluation, timed three times whenever asked: before and after what is compared with it."""

    evaluate: Callable[[], Any]
    taken: list[float] = field(default_factory=list)

    def take(self) -> None:
        """Time it; one evaluation to warm up goes first."""
        if not self.taken:
            self.evaluate()
        self.taken += [cpu_seconds(self.evaluate)[0] for _ in range(3)]

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(self.taken)


@dataclass
class Calls:
    """CPU seconds and results of the calls of one method, and their arguments."""

    seconds: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    arguments: list[tuple[Any, ...]] = field(default_factory=list)


@contextlib.contextmanager
def calls_of(owner: type, method: str) -> Iterator[Calls]:
    """Watch a method that a tool calls somewhere inside, to time its sweep without what comes before and after."""
    original, calls = getattr(owner, method), Calls()

    def watched(*arguments: Any, **named: Any) -> Any:
        spent, result = cpu_seconds(lambda: original(*arguments, **named))
        calls.seconds.append(spent)
        calls.results.append(result)
        calls.arguments.append(arguments)
        return result

    setattr(owner, method, watched)
    try:
        yield calls
    finally:
        setattr(owner, method, original)


def task() -> Task:
    """What the command line names; from here on the process has one processor."""
    parser = argparse.ArgumentParser()
    for name in ("pt2", "onnx", "evaluation", "calibration"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--samples", type=int, required=True)
    # some of the runtimes have as many threads as there are processors, whatever they are told
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return Task(**vars(parser.parse_args()))
