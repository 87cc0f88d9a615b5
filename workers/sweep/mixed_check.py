"""The exported file beside the variant that was verified: how far outputs and metric lie apart on the same samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.domain.costs import Precision
from service.domain.errors import InvalidInput
from service.domain.file_check import FileCheck, FileScore
from service.domain.layers import Variant
from service.domain.results import Interval
from workers.backends.protocol import Array, Tensors
from workers.data.stored import Indices
from workers.metrics.recorder import Recorder
from workers.metrics.scores import Scoreboard
from workers.metrics.shard_result import ShardResult
from workers.sandbox.graph import SandboxedGraph
from workers.sweep.fitting import in_batches_that_fit
from workers.sweep.job import Job
from workers.sweep.reference import reference

MOST_SAMPLES = 1024
"""Of the sweep's samples, in its order: the file, its variant and fp32 are run on each, the file twice."""
PARTS = 8
"""Corpus metrics take their interval from the spread between parts."""
ROUNDING = 1e-6
"""Relative: what two runtimes' float32 sums may move a metric by whose interval is a point."""
FUSED = {"simulated": False, "fused": True}
"""The arithmetics that the file is run in."""
VARIANT = "variant"


@dataclass(frozen=True)
class Compared:
    """``outputs``: arithmetic → output → relative RMS difference from the variant's (None: not defined), or why not."""

    check: FileCheck
    outputs: Mapping[str, Mapping[str, float | None] | str]


def compare(job: Job, graph: SandboxedGraph, int8: frozenset[str], precision: Precision) -> Compared | str:
    """The graph's file beside the variant with these layers in int8; a reason where the variant does not run."""
    variant = Variant(name=VARIANT, int8=int8)
    # a model of standard operators has nothing to do with plugins
    plugins = bool(job.open_model().facts.libraries)
    return in_batches_that_fit(job, lambda size: _Comparison(job, variant, graph, plugins, size).result(precision))


@dataclass
class _Distance:
    """Sums over the values of one output, in float64."""

    noise: float = 0.0
    signal: float = 0.0

    def add(self, found: Array, expected: Array) -> None:
        wanted = expected.astype(np.float64)
        self.noise += float(np.square(found.astype(np.float64) - wanted).sum())
        self.signal += float(np.square(wanted).sum())

    @property
    def relative(self) -> float | None:
        if self.noise == 0.0:
            return 0.0
        ratio = self.noise / self.signal if self.signal else math.nan
        return math.sqrt(ratio) if math.isfinite(ratio) else None


@dataclass
class _Comparison:
    job: Job
    variant: Variant
    graph: SandboxedGraph
    plugins: bool
    batch_size: int
    failures: dict[str, str] = field(default_factory=dict)
    distances: dict[str, dict[str, _Distance]] = field(default_factory=dict)

    def result(self, precision: Precision) -> Compared | str:
        indices, per_layer = self.job.plan.order()[:MOST_SAMPLES], self.job.open_model().facts.cost_per_layer
        parts = [self._part(each) for each in parts_of(indices, self.batch_size, whole_batches=per_layer)]
        board = Scoreboard(parts, self.job.metric())
        if VARIANT in board.failures:
            return board.failures[VARIANT]
        failures = {name: why for name, why in board.failures.items() if name in FUSED}
        expected = board.score(VARIANT, against=VARIANT).metric
        scores = {name: _score(board, name, expected) for name in FUSED if name not in failures}
        check = FileCheck(
            fallback_precision=precision,
            samples=board.samples(VARIANT),
            variant=expected,
            simulated=scores.get("simulated"),
            fused=scores.get("fused"),
            failures=failures,
        )
        outputs: dict[str, Mapping[str, float | None] | str] = {
            name: failures[name]
            if name in failures
            else {output: distance.relative for output, distance in self.distances[name].items()}
            for name in FUSED
        }
        return Compared(check, outputs)

    def _part(self, indices: Indices) -> ShardResult:
        """fp32, the variant and the file on these samples."""
        job, metric, model = self.job, self.job.metric(), self.job.open_model()
        batches = list(job.open_dataset().batches(indices, self.batch_size))
        model.set_amax(job.amax)
        targets = [each.targets for each in batches] if job.plan.has_labels else None
        recorder = Recorder(metric, reference(job, model, batches, metric.output), targets)
        for done in model.evaluate([each.inputs for each in batches], [self.variant]):
            job.held.checkpoint()
            if done.outputs is None:
                for name in (VARIANT, *FUSED):
                    recorder.fail(name, done.failure or "it gave no output")
                continue
            recorder.add(VARIANT, done.batch, np.asarray(done.outputs[metric.output]))
            inputs, samples = batches[done.batch].inputs, len(batches[done.batch].indices)
            for name, found in self._of_the_file(inputs, samples, done.outputs).items():
                recorder.add(name, done.batch, found[metric.output])
        for name, reason in self.failures.items():
            recorder.fail(name, reason)
        return recorder.result([VARIANT, *FUSED])

    def _of_the_file(self, inputs: Tensors, samples: int, expected: Tensors) -> dict[str, dict[str, Array]]:
        """Its outputs in each arithmetic that it has run in so far."""
        found: dict[str, dict[str, Array]] = {}
        for name, fused in FUSED.items():
            if name in self.failures:
                continue
            try:
                answer = self.graph.run(inputs, samples, fused=fused, plugins=self.plugins)
                found[name] = {output: answer[output] for output in expected}
            except InvalidInput as error:
                self.failures[name] = error.message
                continue
            except KeyError as error:
                self.failures[name] = f"it has no output {error}"
                continue
            distances = self.distances.setdefault(name, {})
            for output, value in expected.items():
                distances.setdefault(output, _Distance()).add(found[name][output], np.asarray(value))
        return found


def parts_of(indices: Indices, batch_size: int, *, whole_batches: bool) -> list[Indices]:
    """About as many parts as make an interval, each of whole batches where that leaves two.

    ``whole_batches``: in any case, since an engine is built for each shape.
    """
    even = -(-len(indices) // PARTS)
    whole = -(-even // batch_size) * batch_size
    size = whole if whole_batches or whole < len(indices) else even
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _score(board: Scoreboard, name: str, expected: Interval) -> FileScore:
    found = board.score(name, against=VARIANT)
    return FileScore(metric=found.metric, difference=found.drop, within=is_within(found.metric.value, expected))


def is_within(value: float | None, expected: Interval) -> bool | None:
    """Whether a metric lies in an interval, but for rounding; None where one of them is not defined."""
    if value is None or expected.low is None or expected.high is None:
        return None
    slack = ROUNDING * max(abs(expected.low), abs(expected.high))
    return expected.low - slack <= value <= expected.high + slack


def warnings(check: FileCheck) -> Sequence[dict[str, str]]:
    """A file that cannot be run, or whose metric is not the verified one."""
    found = []
    for name, score in (("simulated", check.simulated), ("fused", check.fused)):
        how = "with Q/DQ as they stand" if name == "simulated" else "with its own kernels"
        if score is None:
            message = f"mixed.onnx was not measured in ONNX Runtime {how}: {check.failures.get(name)}"
            found.append({"code": "exported-file-not-measured", "message": message})
        elif score.within is False:
            variant = check.variant
            message = (
                f"mixed.onnx does not have the metric that was verified: {_number(score.metric.value)} in ONNX Runtime "
                f"{how}, against {_number(variant.value)} ({_number(variant.low)} to {_number(variant.high)}) of the "
                f"verified variant on the same {check.samples} samples"
            )
            found.append({"code": "exported-file-differs", "message": message})
    return found


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
