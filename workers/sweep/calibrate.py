"""Phase 2: find every activation's range in one fp32 pass, then see that each layer runs in int8 at all."""

from collections.abc import Iterator

import numpy as np

from service.domain.errors import InvalidInput, SweepFailure
from service.domain.layers import LAYER_PREFIX, Layer
from service.domain.settings import CalibrationSettings, SweepMethod, SweepMode
from workers.backends.protocol import Array, OpenedModel, Tensors
from workers.calibration.histogram import Grid, Histogram
from workers.calibration.methods import Unusable, amax
from workers.engine import racing
from workers.sweep.job import Job
from workers.sweep.outcome import Calibrated
from workers.sweep.plan import Plan, layer_variants, sweep_variants
from workers.sweep.statistics import layer_statistics

TRIAL_SAMPLES = 2


def run(job: Job) -> Calibrated:
    """Amax of every activation edge, and the layers that cannot be in int8, with the reason."""
    plan, model = job.plan, job.open_model()
    histograms: dict[str, Histogram] = {}

    def observe(edge: str, tensor: Array) -> None:
        if edge not in histograms:
            histograms[edge] = Histogram(Grid.of(tensor))
        histograms[edge].update(tensor)

    try:
        model.observe(_calibration_batches(job, plan), observe)
    except InvalidInput as error:
        raise SweepFailure(error.message, code=error.code) from error
    layers = plan.active({})
    ranges, failed = _ranges(layers, histograms, job.settings.calibration)
    model.set_amax(ranges)
    failed |= _trial(job, model, plan.active(failed))
    active = plan.active(failed)
    if not active:
        why = next(iter(failed.values()))
        raise SweepFailure(f"no layer can be measured in int8; the first one: {why}", code="no-layers")
    sizes = plan.shard_sizes()
    first = racing.looks(sizes)[0] if job.settings.method is SweepMethod.RACING else len(sizes)
    return Calibrated(
        ranges,
        failed,
        variants=len(sweep_variants(active, job.settings.mode)),
        shards=first,
        statistics=layer_statistics(job, model, histograms, active),
    )


def _calibration_batches(job: Job, plan: Plan) -> Iterator[Tensors]:
    done = 0
    for batch in job.open_dataset(calibration=True).batches(np.arange(plan.calibration_samples), plan.batch_size):
        job.held.checkpoint(done / plan.calibration_samples)
        yield batch.inputs
        done += len(batch.indices)


def _ranges(
    layers: tuple[Layer, ...], histograms: dict[str, Histogram], settings: CalibrationSettings
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


def _trial(job: Job, model: OpenedModel, layers: tuple[Layer, ...]) -> dict[str, str]:
    """Run each layer alone in int8 on two samples: a layer that cannot run must not spoil the all-int8 control."""
    dataset = job.open_dataset()
    batch = next(iter(dataset.batches(np.arange(min(TRIAL_SAMPLES, dataset.samples)), job.plan.batch_size)))
    failed: dict[str, str] = {}
    for done in model.evaluate([batch.inputs], layer_variants(layers, SweepMode.ONE_ON)):
        job.held.checkpoint()
        if done.failure is not None:
            failed[done.variant.name.removeprefix(LAYER_PREFIX)] = done.failure
    return failed
