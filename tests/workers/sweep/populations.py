"""Sweeps over numbers that are known beforehand, decided by the product's own code: no model, no database.

A population gives every layer's wrong answers and output errors on all samples. A list's are those of its int8 layers
together, so that every variant that a decision asks for has its numbers.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.domain.layers import ALL_INT8, FP32, FP32_REPEATED, LAYER_PREFIX, Layer, Operation
from service.domain.results import Decision
from service.domain.settings import (
    MetricSettings,
    SelectionAlgorithm,
    SelectionSettings,
    SweepMethod,
    SweepMode,
    SweepSettings,
)
from workers.engine import racing
from workers.metrics.draw import Draw
from workers.metrics.shard_result import ShardResult, merge
from workers.metrics.task_metric import resolve_metric
from workers.sweep import select
from workers.sweep.course import Course
from workers.sweep.measure import fallback_of
from workers.sweep.outcome import Decided
from workers.sweep.plan import Plan, shards_of, sweep_variants


@dataclass
class Swept:
    """``samples``: variant → on how many it was measured; ``stopped``: layer id → why on no more."""

    decision: Decision
    samples: Counter[str] = field(default_factory=Counter)
    stopped: dict[str, str] = field(default_factory=dict)
    looks: int = 0


@dataclass(frozen=True)
class Population:
    """``wrong``: (L, N) of 0 and 1, where a layer in int8 answers wrongly; ``mse``: (L, N), its output error."""

    wrong: np.ndarray
    mse: np.ndarray

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple("abcdefghijklmnopqrstuvwxyz"[: len(self.wrong)])

    def swept(self, method: SweepMethod, *, seed: int = 0, metric: str = "top1", **asked: Any) -> Swept:
        along_the_ranking = {"selection": SelectionSettings(algorithm=SelectionAlgorithm.GREEDY), **asked}
        settings = SweepSettings(
            model="", dataset="", method=method, seed=seed, metric=MetricSettings(name=metric), **along_the_ranking
        )
        plan = self.plan(seed)
        names = [each.name for each in sweep_variants(plan.layers, SweepMode.ONE_ON)]
        found = resolve_metric(settings.metric, has_labels=True, output_names=["y"])
        course = Course(settings, plan, found, Draw.equal(plan.samples))
        order = plan.order()
        first = len(plan.shards) if method is SweepMethod.EXACT else racing.looks(plan.shard_sizes())[0]
        shards = [self.shard(order[each.start : each.stop], names) for each in plan.shards[:first]]
        rounds = 0
        while not isinstance(outcome := select.step(course, shards), Decided):
            rounds += 1
            for ordinal, wanted in sorted(outcome.variants.items()):
                samples = order[plan.shards[ordinal].start : plan.shards[ordinal].stop]
                shards[ordinal : ordinal + 1] = [merge([*shards[ordinal : ordinal + 1], self.shard(samples, wanted)])]
        counted: Counter[str] = Counter()
        for each in shards:
            counted.update(dict.fromkeys(each.variants, each.samples))
        return Swept(outcome.decision, counted, dict(outcome.stopped), rounds)

    def plan(self, seed: int) -> Plan:
        samples = self.wrong.shape[1]
        return Plan(
            layers=tuple(
                Layer(id=each, name=f"net.{each}", op=Operation.LINEAR, activations=()) for each in self.layers
            ),
            excluded={},
            skipped=(),
            inputs=(),
            outputs=(),
            folded_batch_norms=0,
            population=samples,
            samples=samples,
            seed=seed,
            shards=shards_of(racing.cut(samples, samples)),
            batch_size=64,
            calibration_samples=0,
            has_labels=True,
        )

    def shard(self, samples: np.ndarray, names: Sequence[str]) -> ShardResult:
        names = tuple(dict.fromkeys((FP32, *names)))
        rows = [self._int8(each) for each in names]
        correct = np.stack([1.0 - self.wrong[each].max(axis=0, initial=0.0) for each in rows])[:, samples]
        mse = np.stack([self.mse[each].sum(axis=0) for each in rows])[:, samples]
        return ShardResult(names, {"correct": correct, "mse": mse, "signal": np.ones_like(mse)})

    def _int8(self, name: str) -> list[int]:
        if name in (FP32, FP32_REPEATED):
            return []
        if name.startswith(LAYER_PREFIX):
            return [self.layers.index(name.removeprefix(LAYER_PREFIX))]
        kept = () if name == ALL_INT8 else fallback_of(name)
        return [place for place, layer in enumerate(self.layers) if layer not in kept]
