"""From per-sample results to scores: every variant's metric, its drop, its sensitivity, all with intervals."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from service.domain.layers import ALL_INT8, FP32, LAYER_PREFIX
from service.domain.results import Interval, VariantScore
from service.domain.settings import SweepMode
from workers.metrics import intervals
from workers.metrics.draw import Draw
from workers.metrics.intervals import CONFIDENCE, Floats
from workers.metrics.shard_result import ShardResult
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
    """The scores of all variants in ``shards`` (in shard order).

    A shard need not hold every variant: a score is over the shards that hold it, a drop over those that hold both.
    ``looks``: how often the intervals are looked at while samples come in. They hold at each look with 95 % confidence,
    at the price of width (union bound). ``confidence`` is that of all looks together. ``draw``: the samples were drawn
    with unequal chances; scores are then of all of its samples, estimated from the shards so far.
    """

    def __init__(
        self,
        shards: Sequence[ShardResult],
        metric: TaskMetric,
        *,
        looks: int = 1,
        confidence: float = CONFIDENCE,
        draw: Draw | None = None,
    ) -> None:
        self._shards = shards
        self._metric = metric
        self._draw = draw
        self._confidence = 1 - (1 - confidence) / looks
        self._rows = [{name: row for row, name in enumerate(each.variants)} for each in shards]
        self._failures: dict[str, str] = {}
        for each in shards:
            self._failures = {**each.failures, **self._failures}

    @property
    def failures(self) -> Mapping[str, str]:
        """Variant → why it was not measured."""
        return self._failures

    @property
    def variants(self) -> tuple[str, ...]:
        """Those that were measured."""
        every = dict.fromkeys(name for each in self._shards for name in each.variants)
        return tuple(name for name in every if name not in self._failures)

    def samples(self, variant: str) -> int:
        """How many the variant was measured on."""
        return sum(self._shards[each].samples for each in self._holding(variant))

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

    def drops(self, variant: str, *, against: str, measure: str, higher_is_better: bool) -> Floats:
        """By how much each sample's measure is worse than that of the other variant, (n,), in the order of shards."""
        shards = self._holding(variant, against)
        mine, theirs = (self._of(each, measure, shards) for each in (variant, against))
        return theirs - mine if higher_is_better else mine - theirs

    def _holding(self, *variants: str) -> list[int]:
        """The shards that hold all of these."""
        return [index for index, rows in enumerate(self._rows) if all(each in rows for each in variants)]

    def _of(self, variant: str, measure: str, shards: Sequence[int]) -> Floats:
        rows = [self._shards[each].measures[measure][self._rows[each][variant]] for each in shards]
        return np.concatenate(rows) if rows else np.zeros(0)

    def _value(self, variant: str) -> Interval:
        if variant in self._failures:
            return self._unmeasured(variant)
        shards = self._holding(variant)
        if self._metric.name == "sqnr":
            return self._sqnr(variant, shards)
        if self._metric.measure is not None:
            return self._mean(self._metric.measure, self._of(variant, self._metric.measure, shards))
        full, without = _leaving_out(shards, lambda some: self._compute(variant, some))
        return intervals.jackknife(full, without, self.samples(variant))

    def _drop(self, variant: str, reference: str) -> Interval:
        for each in (variant, reference):
            if each in self._failures:
                return self._unmeasured(each)
        sign = 1.0 if self._metric.higher_is_better else -1.0
        shards = self._holding(variant, reference)
        if self._metric.name == "sqnr":
            return self._sqnr_drop(variant, reference, shards)
        if self._metric.measure is not None:
            mine, theirs = (self._of(each, self._metric.measure, shards) for each in (variant, reference))
            return self._mean_drop(self._metric.measure, sign * theirs, sign * mine)
        full, without = _leaving_out(
            shards, lambda some: sign * (self._compute(reference, some) - self._compute(variant, some))
        )
        return intervals.jackknife_drop(full, without, sum(self._shards[each].samples for each in shards))

    def _sqnr_drop(self, variant: str, reference: str, shards: Sequence[int]) -> Interval:
        """In dB: −SQNR against fp32 (which has no noise), else how much more noise than the reference."""
        noise = self._of(variant, "mse", shards)
        if reference == FP32:
            return _negated(self._sqnr(variant, shards))
        return intervals.sqnr_drop_db(noise, self._of(reference, "mse", shards), self._confidence)

    def _measures(self, variant: str) -> dict[str, Interval]:
        shards = self._holding(variant)
        if variant in self._failures or not shards:
            return {}
        found = {}
        for measure, name in TABLE_NAMES.items():
            if measure in self._shards[shards[0]].measures:
                found[name] = self._mean(measure, self._of(variant, measure, shards))
        found["sqnr_db"] = self._sqnr(variant, shards)
        return found

    def _sqnr(self, variant: str, shards: Sequence[int]) -> Interval:
        signal, noise = (self._of(variant, each, shards) for each in ("signal", "mse"))
        return intervals.sqnr_db(signal, noise, self._confidence, draw=self._unequal(noise))

    def _unequal(self, values: Floats) -> Draw | None:
        """How the samples were drawn, where some had better chances and some were not drawn yet."""
        return self._draw if self._draw is not None and len(values) < self._draw.samples else None

    def _unmeasured(self, variant: str) -> Interval:
        return intervals.undefined(f"{variant} was not measured: {self._failures[variant]}", self.samples(variant))

    def _compute(self, variant: str, shards: Sequence[int]) -> float:
        assert self._metric.corpus is not None
        states = [
            {name: array[self._rows[each][variant]] for name, array in self._shards[each].states.items()}
            for each in shards
        ]
        return self._metric.corpus.compute(states)

    def _mean(self, measure: str, values: Floats) -> Interval:
        if (draw := self._unequal(values)) is not None:
            return intervals.drawn_mean(values, draw, self._confidence)
        interval = intervals.proportion if _is_binary(measure, values) else intervals.mean
        return interval(values, self._confidence)

    def _mean_drop(self, measure: str, reference: Floats, variant: Floats) -> Interval:
        if (draw := self._unequal(variant)) is not None:
            interval = intervals.drawn_mean_drop if measure in BINARY else intervals.drawn_mean
            return interval(reference - variant, draw, self._confidence)
        if measure not in BINARY:
            # a continuous measure against fp32 is zero only where nothing at all changed: no test would say more
            return intervals.mean(reference - variant, self._confidence)
        if _is_binary(measure, reference, variant):
            return intervals.proportion_difference(reference, variant, self._confidence)
        return intervals.mean_drop(reference - variant, self._confidence)


def layer_scores(board: Scoreboard, mode: SweepMode) -> dict[str, VariantScore]:
    """Layer id → score of each layer that was measured, its sensitivity as the drop."""
    names = [each for each in board.variants if each.startswith(LAYER_PREFIX)]
    return {name.removeprefix(LAYER_PREFIX): board.sensitivity(name, mode) for name in names}


def _leaving_out(shards: Sequence[int], compute: Callable[[Sequence[int]], float]) -> tuple[float, Floats]:
    """A number over all shards, and over all but one, shape (shards,); of a lone shard, shape (0,)."""
    left_out = shards if len(shards) > 1 else []
    without = [compute([each for each in shards if each != one]) for one in left_out]
    return compute(shards), np.asarray(without)


def _is_binary(measure: str, *values: Floats) -> bool:
    # with positions to average over (segmentation) a sample's share is no longer 0 or 1
    return measure in BINARY and all(bool(((each == 0) | (each == 1)).all()) for each in values)


def _negated(found: Interval) -> Interval:
    if found.value is None:
        return found
    low = None if found.high is None else -found.high
    high = None if found.low is None else -found.low
    return found.model_copy(update={"value": -found.value, "low": low, "high": high})
