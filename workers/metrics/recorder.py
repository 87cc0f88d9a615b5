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


class NotProbabilities(Exception):
    """The rows of a batch's fp32 output are no probabilities, though those of the first batch are."""


class Recorder:
    """Pairs every variant with ``reference``: fp32's scored output, batch by batch, each (n, ...).

    It may be given with ``refer`` instead, each batch before the variants' outputs for it. Raises SweepFailure where
    fp32's own output is not finite, or where the metric cannot be had from it.
    """

    def __init__(self, metric: TaskMetric, reference: Sequence[Array], targets: Sequence[Array | None] | None) -> None:
        self._metric = metric
        # one batch might look like probabilities by chance; the shard as a whole hardly does
        self._distribution = all(is_distribution(each) for each in reference) if reference else None
        self._reference: dict[int, Scored] = {}
        self._targets = targets
        self._rows: dict[str, dict[int, dict[str, Floats]]] = {}
        self._states: dict[str, CorpusState] = {}
        self._failures: dict[str, str] = {}
        for batch, output in enumerate(reference):
            self.refer(batch, output)

    @property
    def output(self) -> str:
        """The name of the output that is scored."""
        return self._metric.output

    def refers(self, batch: int) -> bool:
        """Whether fp32's output for the batch is known."""
        return batch in self._reference

    def refer(self, batch: int, output: Array) -> None:
        """fp32's output for one batch; raises NotProbabilities where it contradicts what the first one was taken for.

        Then all outputs must be given at the start.
        """
        if not np.isfinite(output).all():
            raise SweepFailure(
                f"the fp32 output {self._metric.output!r} holds NaN or infinite values: int8 has nothing to compare "
                "with",
                code="fp32-not-finite",
            )
        if self._distribution is None:
            self._distribution = is_distribution(output)
        elif self._distribution and not is_distribution(output):
            raise NotProbabilities
        self._reference[batch] = scored(output, distribution=self._distribution)

    def fail(self, variant: str, reason: str) -> None:
        """A variant did not run; its other batches are of no use."""
        self._failures.setdefault(variant, reason)

    def add(self, variant: str, batch: int, output: Array) -> None:
        """One variant's output for one batch."""
        if not np.isfinite(output).all():
            self.fail(variant, "its output holds NaN or infinite values")
            return
        rows = self._compare(batch, scored(output, distribution=bool(self._distribution)))
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
        samples = sum(len(each.values) for each in self._reference.values())
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
