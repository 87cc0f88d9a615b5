"""From per-sample results to scores: every variant's metric, its drop, its sensitivity, all with intervals."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from service.domain.layers import ALL_INT8, FP32
from service.domain.results import Interval, VariantScore
from service.domain.settings import SweepMode
from workers.metrics import intervals
from workers.metrics.intervals import Floats
from workers.metrics.shard_result import ShardResult, concatenate
from workers.metrics.task_metric import TaskMetric

# measure → the name that it has in the table
TABLE_NAMES = {
    "mse": "mse",
    "cosine": "cosine",
    "kl": "kl",
    "agreement": "agreement",
    "correct": "top1",
    "correct5": "top5",
    "cross_entropy": "cross_entropy",
}
BINARY = ("correct", "correct5", "agreement")


class Scoreboard:
    """The scores of all variants in ``shards`` (in shard order; all hold the same variants)."""

    def __init__(self, shards: Sequence[ShardResult], metric: TaskMetric) -> None:
        self._shards = shards
        self._metric = metric
        self._all = concatenate(shards)
        self._row = {name: index for index, name in enumerate(self._all.variants)}

    @property
    def failures(self) -> Mapping[str, str]:
        """Variant → why it was not measured."""
        return self._all.failures

    @property
    def variants(self) -> tuple[str, ...]:
        """Those that were measured."""
        return tuple(name for name in self._all.variants if name not in self._all.failures)

    def score(self, variant: str, *, against: str = FP32) -> VariantScore:
        """The variant's metric, its drop against another variant (positive: worse), and every measure."""
        return VariantScore(
            variant=variant,
            metric=self._value(variant),
            drop=self._drop(variant, against),
            measures=self._measures(variant),
        )

    def sensitivity(self, variant: str, mode: SweepMode) -> VariantScore:
        """The score with the layer's sensitivity as its drop, positive: this layer hurts.

        One on: how much worse than fp32. One off: how much worse all-int8 is than the same with this layer in
        floating point.
        """
        if mode is SweepMode.ONE_ON:
            return self.score(variant)
        score = self.score(variant)
        return score.model_copy(update={"drop": self._drop(ALL_INT8, variant)})

    def _of(self, variant: str, measure: str) -> Floats:
        row: Floats = self._all.measures[measure][self._row[variant]]
        return row

    def _value(self, variant: str) -> Interval:
        if variant in self.failures:
            return self._unmeasured(variant)
        if self._metric.name == "sqnr":
            return intervals.sqnr_db(self._of(variant, "signal"), self._of(variant, "mse"))
        if self._metric.measure is not None:
            return _mean(self._metric.measure, self._of(variant, self._metric.measure))
        full, without = self._leaving_out(lambda shards: self._compute(variant, shards))
        return intervals.jackknife(full, without, self._all.samples)

    def _drop(self, variant: str, reference: str) -> Interval:
        for each in (variant, reference):
            if each in self.failures:
                return self._unmeasured(each)
        sign = 1.0 if self._metric.higher_is_better else -1.0
        if self._metric.name == "sqnr":
            return self._sqnr_drop(variant, reference)
        if self._metric.measure is not None:
            mine, theirs = (self._of(each, self._metric.measure) for each in (variant, reference))
            return _mean_drop(self._metric.measure, sign * theirs, sign * mine)
        full, without = self._leaving_out(
            lambda shards: sign * (self._compute(reference, shards) - self._compute(variant, shards))
        )
        return intervals.jackknife_drop(full, without, self._all.samples)

    def _sqnr_drop(self, variant: str, reference: str) -> Interval:
        """In dB: −SQNR against fp32 (which has no noise), else how much more noise than the reference."""
        if reference == FP32:
            return _negated(intervals.sqnr_db(self._of(variant, "signal"), self._of(variant, "mse")))
        return intervals.sqnr_drop_db(self._of(variant, "mse"), self._of(reference, "mse"))

    def _measures(self, variant: str) -> dict[str, Interval]:
        if variant in self.failures:
            return {}
        found = {}
        for measure, name in TABLE_NAMES.items():
            if measure in self._all.measures:
                found[name] = _mean(measure, self._of(variant, measure))
        found["sqnr_db"] = intervals.sqnr_db(self._of(variant, "signal"), self._of(variant, "mse"))
        return found

    def _unmeasured(self, variant: str) -> Interval:
        return intervals.undefined(f"{variant} was not measured: {self.failures[variant]}", self._all.samples)

    def _compute(self, variant: str, shards: Sequence[ShardResult]) -> float:
        assert self._metric.corpus is not None
        row = self._row[variant]
        states = [{name: array[row] for name, array in each.states.items()} for each in shards]
        return self._metric.corpus.compute(states)

    def _leaving_out(self, compute: Callable[[Sequence[ShardResult]], float]) -> tuple[float, Floats]:
        """A number over all shards, and over all but one, shape (shards,); of a lone shard, shape (0,)."""
        count = len(self._shards)
        without = [
            compute([each for index, each in enumerate(self._shards) if index != left_out])
            for left_out in range(count if count > 1 else 0)
        ]
        return compute(self._shards), np.asarray(without)


def _mean(measure: str, values: Floats) -> Interval:
    return intervals.proportion(values) if _is_binary(measure, values) else intervals.mean(values)


def _mean_drop(measure: str, reference: Floats, variant: Floats) -> Interval:
    if measure not in BINARY:
        # a continuous measure against fp32 is zero only where nothing at all changed: no test would say more
        return intervals.mean(reference - variant)
    if _is_binary(measure, reference, variant):
        return intervals.proportion_difference(reference, variant)
    return intervals.mean_drop(reference - variant)


def _is_binary(measure: str, *values: Floats) -> bool:
    # with positions to average over (segmentation) a sample's share is no longer 0 or 1
    return measure in BINARY and all(bool(((each == 0) | (each == 1)).all()) for each in values)


def _negated(found: Interval) -> Interval:
    if found.value is None:
        return found
    low = None if found.high is None else -found.high
    high = None if found.low is None else -found.low
    return found.model_copy(update={"value": -found.value, "low": low, "high": high})
