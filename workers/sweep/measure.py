"""Phases 3 and 5: one shard of samples, every variant; per-sample results paired with fp32 on the same samples."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from service.domain.errors import SweepFailure
from service.domain.layers import FP32, Variant, controls
from service.domain.states import UnitKind
from workers.backends.protocol import Array
from workers.data.binding import Batch
from workers.metrics.recorder import NotProbabilities, Recorder
from workers.metrics.shard_result import ShardResult, assemble
from workers.metrics.task_metric import TaskMetric
from workers.sandbox.model import SandboxedModel
from workers.sweep import reuse
from workers.sweep.fitting import in_batches_that_fit
from workers.sweep.job import Job
from workers.sweep.outcome import Measured
from workers.sweep.plan import sweep_variants
from workers.sweep.reference import reference

MIXED_PREFIX = "mixed:"
HELD_BYTES = 64 * 2**20
"""Outputs of variants wait for fp32's, with which they are compared, where they take no more room than this."""


def run(job: Job) -> Measured:
    """The shard's results for all variants of the unit: found where they were measured before, else measured."""
    metric, variants = job.metric(), variants_of(job)
    key, names = reuse.content_key(job, metric), reuse.identities(variants, job.active_layers(), job.amax)
    sources = reuse.find(job, key, names)
    known = {each for source in sources for each in source.identities}
    missing = [(each, name) for each, name in zip(variants, names, strict=True) if name not in known]
    if missing:
        wanted = [each for each, _ in missing]
        result = in_batches_that_fit(job, lambda size: _measure(job, metric, wanted, size))
        sources = [replace(result, identities=tuple(name for _, name in missing)), *sources]
    result = assemble([each.name for each in variants], names, sources)
    return Measured(UnitKind(job.lease.kind), result, content_key=key, found=len(variants) - len(missing))


def _measure(job: Job, metric: TaskMetric, variants: Sequence[Variant], size: int) -> ShardResult:
    """All variants in one pass, fp32 among them; where that cannot be, fp32 has a pass of its own before."""
    model, batches = job.open_model(), job.shard(size)
    job.read_next_shard()
    model.set_amax(job.amax)
    targets = [each.targets for each in batches] if job.plan.has_labels else None
    try:
        recorder = Recorder(metric, (), targets)
        _record(job, model, batches, variants, recorder)
    except (HoldsTooMuch, NotProbabilities):
        recorder = Recorder(metric, reference(job, model, batches, metric.output), targets)
        _record(job, model, batches, variants, recorder)
    return recorder.result([each.name for each in variants])


class HoldsTooMuch(Exception):
    """The outputs that wait for fp32's would take too much room."""


def _record(
    job: Job, model: SandboxedModel, batches: Sequence[Batch], variants: Sequence[Variant], recorder: Recorder
) -> None:
    fp32 = Variant(name=FP32, int8=frozenset())
    known = any(each.name == FP32 for each in variants)
    every = variants if known or recorder.refers(0) else [fp32, *variants]
    total = len(every) * len(batches)
    waiting: dict[int, list[tuple[str, Array]]] = {}
    held = 0
    for step, done in enumerate(model.evaluate([each.inputs for each in batches], every)):
        job.held.checkpoint(step / total)
        name, batch = done.variant.name, done.batch
        if done.outputs is None:
            if name == FP32:
                raise SweepFailure(f"the model does not run in fp32: {done.failure}", code="fp32-failed")
            recorder.fail(name, done.failure or "it gave no output")
            continue
        output = np.asarray(done.outputs[recorder.output])
        if recorder.refers(batch):
            recorder.add(name, batch, output)
            continue
        waiting.setdefault(batch, []).append((name, output))
        held += output.nbytes
        if name == FP32:
            recorder.refer(batch, output)
            for other, one in waiting.pop(batch):
                recorder.add(other, batch, one)
                held -= one.nbytes
        elif held > HELD_BYTES:
            raise HoldsTooMuch


def variants_of(job: Job) -> tuple[Variant, ...]:
    """What the unit measures: the whole table, or what the decision still needs."""
    layers, mode = job.active_layers(), job.settings.mode
    if job.lease.kind is UnitKind.MEASURE:
        # after probes the decision says which layers are measured
        every = controls(each.id for each in layers) if job.settings.method.probes else sweep_variants(layers, mode)
        group = job.lease.payload.get("variants")
        return every if group is None else tuple(each for each in every if each.name in group)
    table = {each.name: each for each in sweep_variants(layers, mode)}
    ids = frozenset(each.id for each in layers)
    wanted = (FP32, *job.lease.payload["variants"])
    return tuple(table.get(each) or Variant(name=each, int8=ids - frozenset(fallback_of(each))) for each in wanted)


def mixed_name(fallback: Sequence[str]) -> str:
    """The name of a mixed variant: its fallback layers, by id, in the order of the list."""
    return MIXED_PREFIX + "\n".join(fallback)


def fallback_of(name: str) -> tuple[str, ...]:
    """The fallback layers of the mixed variant with this name."""
    return tuple(name.removeprefix(MIXED_PREFIX).split("\n"))
