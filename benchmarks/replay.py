"""Sweeps replayed on the results of one exact table, decided by the product's own code: many seeds in seconds.

Every layer is measured once on all samples, and a list once it is asked for. A seed is another order of the samples;
what a race would measure is taken from these results. Costs are counted, not timed: a sample of a variant costs the
share of an fp32 evaluation that comes at or after its first int8 layer, measured node by node in the same process, and
each unit of work one fp32 evaluation of its samples. Variants of one unit share more than that, so these are too high
by a little where lists are many; what they leave out is the work around the operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.engine import CALIBRATION_SAMPLES, Stopwatch, evaluated
from benchmarks.networks import Network, batches_of
from service.domain.layers import ALL_INT8, FP32, FP32_REPEATED, Variant, controls
from service.domain.results import Decision
from service.domain.settings import SweepMethod, SweepMode, SweepSettings
from tests.workers.backends.ranges import calibrated
from workers.backends.protocol import OpenSettings
from workers.backends.torch_fake_quant import TorchBackend, TorchModel
from workers.engine import racing
from workers.metrics.draw import Floats
from workers.metrics.per_sample import is_distribution, scored, uncertainty
from workers.metrics.recorder import Recorder
from workers.metrics.shard_result import ShardResult, merge
from workers.metrics.task_metric import TaskMetric, resolve_metric
from workers.sweep import drawing, select
from workers.sweep.course import Course
from workers.sweep.drawing import UNCERTAINTY
from workers.sweep.measure import MIXED_PREFIX, fallback_of
from workers.sweep.outcome import Decided
from workers.sweep.plan import Plan, layer_variants, shards_of, sweep_variants

BATCH = 64
LARGEST_SHARD = 1024


@dataclass(frozen=True)
class Replayed:
    """``cost``: in fp32 evaluations of all samples; ``samples``: layer id → on how many it was measured."""

    decision: Decision
    cost: float
    samples: dict[str, int]
    shards: tuple[ShardResult, ...]
    course: Course


@dataclass
class Table:
    """One network's exact table on these samples; ``model`` measures lists that are not in it."""

    network: Network
    model: TorchModel
    inputs: Any
    labels: Any | None
    measured: ShardResult
    uncertainty: Floats
    shares: dict[str, float]
    lists: dict[str, dict[str, Floats]] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network, inputs: Any, labels: Any | None) -> "Table":
        """Measure every layer on every sample; the ranges are those of the whole calibration set."""
        model = TorchBackend().open(network.pt2, OpenSettings())
        assert isinstance(model, TorchModel)
        (name,) = (each.name for each in model.facts.inputs)
        calibrated(model, {name: network.calibration_samples(32 * CALIBRATION_SAMPLES)})
        shares = suffix_shares(model, batches_of(model, inputs[: 16 * BATCH], BATCH))
        variants = (*controls(each.id for each in model.facts.layers), *layer_variants(model.facts.layers, MODE))
        measured = measure(model, inputs, labels, variants)
        return cls(network, model, inputs, labels, measured, unsure(model, inputs), shares)

    def exact(self, **settings: Any) -> Replayed:
        """The exact sweep."""
        return self._swept(0, SweepMethod.EXACT, settings)

    def raced(self, seed: int, **settings: Any) -> Replayed:
        """A race on the samples in the order of this seed."""
        return self._swept(seed, SweepMethod.RACING, settings)

    def _swept(self, seed: int, method: SweepMethod, asked: dict[str, Any]) -> Replayed:
        settings = SweepSettings(model="", dataset="", mode=MODE, method=method, seed=seed, **asked)
        plan = self._plan(settings)
        metric = self._metric(settings)
        order, draw = drawing.planned(plan)
        cost = 0.0
        if settings.scouts:
            order, draw = drawing.scouted(plan, [ShardResult((FP32,), {UNCERTAINTY: self.uncertainty[None, order]})])
            cost = 1.0 * plan.samples
        course = Course(settings, plan, metric, draw)
        every = tuple(each.name for each in sweep_variants(plan.layers, MODE))
        first = len(plan.shards) if method is SweepMethod.EXACT else racing.looks(plan.shard_sizes())[0]
        shards = [self._shard(order[each.start : each.stop], every) for each in plan.shards[:first]]
        cost += sum(each.samples * self._cost(every) for each in shards)
        while not isinstance(outcome := select.step(course, shards), Decided):
            for ordinal, names in sorted(outcome.variants.items()):
                shard = plan.shards[ordinal]
                found = self._shard(order[shard.start : shard.stop], (FP32, *names))
                cost += found.samples * self._cost((FP32, *names))
                shards[ordinal:] = [merge([*shards[ordinal : ordinal + 1], found]), *shards[ordinal + 1 :]]
        board = course.board(shards)
        samples = {each.id: board.samples(f"layer:{each.id}") for each in plan.layers}
        return Replayed(outcome.decision, cost / plan.samples, samples, tuple(shards), course)

    def _plan(self, settings: SweepSettings) -> Plan:
        facts, samples = self.model.facts, len(self.inputs)
        return Plan(
            layers=facts.layers,
            excluded={},
            skipped=(),
            inputs=facts.inputs,
            outputs=facts.outputs,
            folded_batch_norms=facts.folded_batch_norms,
            population=samples,
            samples=samples,
            seed=settings.seed,
            shards=shards_of(racing.cut(samples, LARGEST_SHARD)),
            batch_size=BATCH,
            calibration_samples=0,
            has_labels=self.labels is not None,
        )

    def _metric(self, settings: SweepSettings) -> TaskMetric:
        names = [each.name for each in self.model.facts.outputs]
        return resolve_metric(settings.metric, has_labels=self.labels is not None, output_names=names)

    def _shard(self, samples: Any, names: Sequence[str]) -> ShardResult:
        rows = {name: row for row, name in enumerate(self.measured.variants)}
        measures = {
            each: np.stack(
                [found[rows[name]][samples] if name in rows else self._list(name, samples)[each] for name in names]
            )
            for each, found in self.measured.measures.items()
        }
        return ShardResult(tuple(names), measures)

    def _list(self, name: str, samples: Any) -> dict[str, Floats]:
        """Each measure of a list on these samples; measured where no race has asked for it yet."""
        blank = {each: np.full(len(self.inputs), np.nan) for each in self.measured.measures}
        known = self.lists.setdefault(name, blank)
        missing = samples[np.isnan(known["mse"][samples])]
        if len(missing):
            int8 = frozenset(self.shares) - frozenset(fallback_of(name))
            labels = None if self.labels is None else self.labels[missing]
            result = measure(self.model, self.inputs[missing], labels, [FLOAT, Variant(name=name, int8=int8)])
            for each, found in result.measures.items():
                known[each][missing] = found[1]
        return {each: found[samples] for each, found in known.items()}

    def _cost(self, names: Sequence[str]) -> float:
        """Of one sample, in fp32 evaluations."""
        cost = 0.0
        for name in names:
            if name in (FP32, FP32_REPEATED, ALL_INT8):
                cost += 1.0
            elif name.startswith(MIXED_PREFIX):
                cost += max(self.shares[each] for each in set(self.shares) - set(fallback_of(name)))
            else:
                cost += self.shares[name.removeprefix("layer:")]
        return cost


MODE = SweepMode.ONE_ON
FLOAT = Variant(name=FP32, int8=frozenset())


def measure(model: TorchModel, inputs: Any, labels: Any | None, variants: Sequence[Variant]) -> ShardResult:
    """These variants (fp32 the first) on all samples, as one shard."""
    batches = batches_of(model, inputs, BATCH)
    targets = None if labels is None else [labels[start : start + BATCH] for start in range(0, len(inputs), BATCH)]
    output = model.facts.outputs[0].name
    metric = TaskMetric("mse", output, higher_is_better=False, unit="", measure="mse")
    reference: dict[int, Any] = {}
    for done in model.evaluate(batches, [FLOAT]):
        assert done.outputs is not None, done.failure
        reference[done.batch] = done.outputs[output]
    recorder = Recorder(metric, [reference[each] for each in range(len(batches))], targets)
    for done in model.evaluate(batches, variants):
        assert done.outputs is not None, done.failure
        recorder.add(done.variant.name, done.batch, np.asarray(done.outputs[output]))
    return recorder.result([each.name for each in variants])


def unsure(model: TorchModel, inputs: Any) -> Floats:
    """How unsure fp32 is of each sample, (N,)."""
    outputs = evaluated(model, batches_of(model, inputs, BATCH), [FLOAT])
    rows = np.concatenate([outputs[FP32, batch] for batch in range(len(outputs))])
    found = uncertainty(scored(rows, distribution=is_distribution(rows)))
    assert found is not None
    return found


def suffix_shares(model: TorchModel, batches: Sequence[Any]) -> dict[str, float]:
    """Layer id → the share of an fp32 evaluation that comes at or after the layer."""
    session = model._session
    session.select(frozenset())
    watch = Stopwatch(session._module)
    for batch in batches:
        session.interpret(watch, batch)
    order, total = list(watch.seconds), sum(watch.seconds.values())
    found = {}
    for layer in session.facts.layers:
        first = next(index for index, node in enumerate(order) if session.layer_of.get(node) == layer.id)
        found[layer.id] = sum(watch.seconds[node] for node in order[first:]) / total
    return found
