"""Collects the outputs of a shard's variants, batch by batch, into per-sample results."""

from collections.abc import Sequence

import numpy as np

from service.domain.errors import SweepFailure
from workers.metrics.corpus import CorpusState
from workers.metrics.per_sample import (
    Array,
    Floats,
    Scored,
    against_labels,
    against_reference,
    is_distribution,
    scored,
)
from workers.metrics.shard_result import ShardResult
from workers.metrics.task_metric import TaskMetric


class Recorder:
    """Pairs every variant with ``reference``: fp32's scored output, batch by batch, each (n, ...).

    Raises SweepFailure where fp32's own output is not finite, or where the metric cannot be had from it.
    """

    def __init__(self, metric: TaskMetric, reference: Sequence[Array], targets: Sequence[Array | None] | None) -> None:
        if not all(np.isfinite(each).all() for each in reference):
            raise SweepFailure(
                f"the fp32 output {metric.output!r} holds NaN or infinite values: int8 has nothing to compare with",
                code="fp32-not-finite",
            )
        self._metric = metric
        # one batch might look like probabilities by chance; the shard as a whole hardly does
        self._distribution = all(is_distribution(each) for each in reference)
        self._reference = [scored(each, distribution=self._distribution) for each in reference]
        self._targets = targets
        self._rows: dict[str, dict[int, dict[str, Floats]]] = {}
        self._states: dict[str, CorpusState] = {}
        self._failures: dict[str, str] = {}

    def fail(self, variant: str, reason: str) -> None:
        """A variant did not run; its other batches are of no use."""
        self._failures.setdefault(variant, reason)

    def add(self, variant: str, batch: int, output: Array) -> None:
        """One variant's output for one batch."""
        if not np.isfinite(output).all():
            self.fail(variant, "its output holds NaN or infinite values")
            return
        rows = self._compare(batch, scored(output, distribution=self._distribution))
        if self._metric.measure is not None and self._metric.measure not in rows:
            raise SweepFailure(self._metric.missing(self._metric.measure), code="metric-not-applicable")
        self._rows.setdefault(variant, {})[batch] = rows
        targets = self._batch_targets(batch)
        if self._metric.corpus is not None and targets is not None:
            state = self._states.setdefault(variant, self._metric.corpus.new_state())
            state.update(output, targets)

    def result(self, variants: Sequence[str]) -> ShardResult:
        """All variants, in the order given; the rows of those that failed hold NaN."""
        done = [each for each in variants if each not in self._failures]
        names = sorted(self._rows[done[0]][0] if done else self._compare(0, self._reference[0]))
        samples = sum(len(each.values) for each in self._reference)
        measures = {name: np.full((len(variants), samples), np.nan) for name in names}
        for index, variant in enumerate(variants):
            if variant in self._failures:
                continue
            batches = self._rows[variant]
            for name in names:
                measures[name][index] = np.concatenate([batches[each][name] for each in sorted(batches)])
        failures = {name: self._failures[name] for name in variants if name in self._failures}
        return ShardResult(tuple(variants), measures, self._corpus_states(variants), failures)

    def _compare(self, batch: int, output: Scored) -> dict[str, Floats]:
        rows = against_reference(self._reference[batch], output)
        targets = self._batch_targets(batch)
        return rows if targets is None else rows | against_labels(output, targets)

    def _batch_targets(self, batch: int) -> Array | None:
        return None if self._targets is None else self._targets[batch]

    def _corpus_states(self, variants: Sequence[str]) -> dict[str, Array]:
        arrays = {variant: state.arrays() for variant, state in self._states.items() if variant not in self._failures}
        if not arrays:
            return {}
        first = next(iter(arrays.values()))
        blank = {name: np.zeros_like(array) for name, array in first.items()}
        return {name: np.stack([arrays.get(variant, blank)[name] for variant in variants]) for name in first}
