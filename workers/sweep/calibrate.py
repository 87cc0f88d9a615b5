"""Phase 2: find the ranges, from counts of one fp32 pass or in a cache, and see that each layer runs in int8 at all."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from service.domain.errors import SweepFailure
from service.domain.layers import CONTROLS, LAYER_PREFIX, Layer
from service.domain.settings import CalibrationSettings, SweepMethod, SweepMode
from service.domain.states import UnitKind
from service.store import units
from service.store.tables import CalibrationRow
from workers.calibration.histogram import Histogram
from workers.calibration.histograms import Histograms
from workers.calibration.methods import Unusable, amax
from workers.engine import racing
from workers.sandbox.model import SandboxedModel
from workers.sweep import count
from workers.sweep.cached_ranges import cache_warnings, cached_ranges
from workers.sweep.job import Job
from workers.sweep.outcome import Calibrated, Counted
from workers.sweep.plan import MERGE_ROUND, layer_groups, layer_variants, sweep_variants
from workers.sweep.statistics import layer_statistics

TRIAL_SAMPLES = 2


def run(job: Job) -> Counted | Calibrated:
    """One shard's counts; of the last unit (or the only one) amax of every edge, and the layers that cannot be int8."""
    if job.cache is not None:
        return _from_cache(job, job.cache)
    if job.lease.round == MERGE_ROUND:
        return _counted(job, _counted_shards(job), None)
    counted = count.run(job)
    if len(job.plan.calibration_shards) > 1:
        return counted
    return _counted(job, counted.histograms, counted)


def _counted_shards(job: Job) -> Histograms:
    with job.context.database.read() as session:
        rows = units.units_of(session, job.sweep_id, UnitKind.CALIBRATE, round_=0)
    contents = [job.context.blobs.read(row.result_sha256) for row in rows if row.result_sha256 is not None]
    return Histograms.merged([Histograms.from_bytes(each) for each in contents])


def _from_cache(job: Job, cache: CalibrationRow) -> Calibrated:
    ranges, failed = cached_ranges(job, cache)
    warnings = cache_warnings(failed, len(job.plan.active({})))
    return replace(_calibrated(job, ranges, failed, {}), warnings=warnings)


def _counted(job: Job, counted: Histograms, own: Counted | None) -> Calibrated:
    ranges, failed = _ranges(job.plan.active({}), counted.by_edge, job.settings.calibration)
    return replace(_calibrated(job, ranges, failed, counted.by_edge), counted=own)


def _calibrated(
    job: Job, ranges: dict[str, float], failed: dict[str, str], seen: Mapping[str, Histogram]
) -> Calibrated:
    """What follows from the ranges. ``failed``: layers that have none; ``seen``: what was counted, for statistics."""
    plan, model = job.plan, job.open_model()
    model.set_amax(ranges)
    if not plan.layers_first(job.settings):
        failed = failed | _trial(job, model, plan.active(failed))
    active = plan.active(failed)
    if not active:
        why = next(iter(failed.values()))
        raise SweepFailure(f"no layer can be measured in int8; the first one: {why}", code="no-layers")
    sizes = plan.shard_sizes()
    first = racing.looks(sizes)[0] if job.settings.method is SweepMethod.RACING else len(plan.searched)
    return Calibrated(
        ranges,
        failed,
        variants=len(sweep_variants(active, job.settings.mode)),
        groups=_groups(job, active),
        shards=first,
        statistics=layer_statistics(job, model, seen, active),
    )


def _groups(job: Job, active: tuple[Layer, ...]) -> tuple[tuple[str, ...], ...]:
    """The variants of each unit, the controls' first where they are measured with the layers."""
    if not job.plan.by_layer(job.settings):
        return ()
    groups = layer_groups([each.name for each in layer_variants(active, job.settings.mode)])
    return groups if job.plan.layers_first(job.settings) else (CONTROLS, *groups)


def _ranges(
    layers: tuple[Layer, ...], histograms: Mapping[str, Histogram], settings: CalibrationSettings
) -> tuple[dict[str, float], dict[str, str]]:
    ranges: dict[str, float] = {}
    failed: dict[str, str] = {}
    for layer in layers:
        for edge in layer.activations:
            if edge not in histograms:
                failed[layer.id] = "its input was never computed during calibration"
                continue
            found = amax(histograms[edge], settings)
            if isinstance(found, Unusable):
                failed[layer.id] = found.reason
            else:
                ranges[edge] = found
    return ranges, failed


def _trial(job: Job, model: SandboxedModel, layers: tuple[Layer, ...]) -> dict[str, str]:
    """Run each layer alone in int8 on two samples: a layer that cannot run must not spoil the all-int8 control."""
    dataset = job.open_dataset()
    batch = next(iter(dataset.batches(np.arange(min(TRIAL_SAMPLES, dataset.samples)), job.plan.batch_size)))
    failed: dict[str, str] = {}
    for done in model.evaluate([batch.inputs], layer_variants(layers, SweepMode.ONE_ON)):
        job.held.checkpoint()
        if done.failure is not None:
            failed[done.variant.name.removeprefix(LAYER_PREFIX)] = done.failure
    return failed
