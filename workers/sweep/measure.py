"""Phases 3 and 5: one shard of samples, every variant; per-sample results paired with fp32 on the same samples."""

import numpy as np

from service.domain.errors import SweepFailure
from service.domain.layers import FP32, Variant
from service.domain.states import UnitKind
from workers.backends.protocol import Array, OpenedModel
from workers.data.binding import Batch
from workers.metrics.recorder import Recorder
from workers.sweep.job import Job
from workers.sweep.outcome import Measured
from workers.sweep.plan import sweep_variants

MIXED_PREFIX = "mixed:"


def run(job: Job) -> Measured:
    """The shard's results for all variants of the unit."""
    plan = job.plan
    model, dataset = job.open_model(), job.open_dataset()
    model.set_amax(job.amax)
    payload = job.lease.payload
    indices = plan.order()[payload["start"] : payload["stop"]]
    batches = list(dataset.batches(indices, plan.batch_size))
    variants = variants_of(job)
    metric = job.metric()
    reference = _reference(job, model, batches, metric.output)
    targets = None if dataset.targets is None else [each.targets for each in batches]
    recorder = Recorder(metric, reference, targets)
    inputs = [each.inputs for each in batches]
    total = len(variants) * len(batches)
    for step, done in enumerate(model.evaluate(inputs, variants)):
        job.held.checkpoint(step / total)
        if done.outputs is None:
            recorder.fail(done.variant.name, done.failure or "it gave no output")
        else:
            recorder.add(done.variant.name, done.batch, np.asarray(done.outputs[metric.output]))
    return Measured(UnitKind(job.lease.kind), recorder.result([each.name for each in variants]))


def variants_of(job: Job) -> tuple[Variant, ...]:
    """What the unit measures: the whole table, or the mixed variants of a verification round."""
    layers = job.active_layers()
    if job.lease.kind is UnitKind.MEASURE:
        return sweep_variants(layers, job.settings.mode)
    every = frozenset(each.id for each in layers)
    mixed = (
        Variant(name=mixed_name(fallback), int8=every - frozenset(fallback))
        for fallback in job.lease.payload["fallbacks"]
    )
    return (Variant(name=FP32, int8=frozenset()), *mixed)


def mixed_name(fallback: list[str]) -> str:
    """The name of a mixed variant: its fallback layers, by id, in the order of the list."""
    return MIXED_PREFIX + "\n".join(fallback)


def _reference(job: Job, model: OpenedModel, batches: list[Batch], output: str) -> list[Array]:
    fp32 = Variant(name=FP32, int8=frozenset())
    outputs: dict[int, Array] = {}
    for done in model.evaluate([each.inputs for each in batches], [fp32]):
        job.held.checkpoint()
        if done.outputs is None:
            raise SweepFailure(f"the model does not run in fp32: {done.failure}", code="fp32-failed")
        outputs[done.batch] = np.asarray(done.outputs[output])
    return [outputs[each] for each in range(len(batches))]
