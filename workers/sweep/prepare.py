"""Phase 1: open model and evaluation set, choose layers and samples, cut the shards."""

import numpy as np

from service.domain.errors import InvalidInput, SweepFailure
from service.domain.settings import SweepMethod, SweepSettings
from workers.data.binding import BoundEvaluationSet
from workers.engine import racing
from workers.engine.batch_size import batch_size
from workers.metrics.task_metric import resolve_metric
from workers.sweep import folding
from workers.sweep.environment import environment_of
from workers.sweep.filters import excluded_layers
from workers.sweep.job import Job
from workers.sweep.outcome import Prepared, Warnings
from workers.sweep.plan import Plan, Shard, after, cut_calibration, cut_shards, shards_of


def run(job: Job) -> Prepared:
    """The plan of the sweep; raises SweepFailure where settings, model and data do not fit together."""
    settings = job.settings
    model = job.open_model()
    try:
        dataset = job.open_dataset()
        calibration = job.open_dataset(calibration=True)
        outputs = [each.name for each in model.facts.outputs]
        metric = resolve_metric(settings.metric, has_labels=dataset.targets is not None, output_names=outputs)
        if settings.method is SweepMethod.RACING and metric.corpus is not None:
            raise InvalidInput(
                f"metric.name: {metric.name} has no value for each sample, by which method racing compares layers; "
                "use method exact, or another metric",
                field="metric.name",
            )
    except InvalidInput as error:
        raise SweepFailure(error.message, code=error.code) from error
    samples = _samples(dataset, settings.samples)
    size = model.facts.batch_size or batch_size(job.device, model.facts.live_bytes)
    # engines are kept on the machine that built them: the fewer shards, the fewer machines build the same one
    whole = model.facts.cost_per_layer and metric.corpus is None
    calibration_samples = 0 if job.cache is not None else min(settings.calibration.samples, calibration.samples)
    chosen_on = samples - _held_out(job.settings, samples)
    searched = _shards(job, dataset, chosen_on, whole=whole)
    held_out = after(_shards(job, dataset, samples - chosen_on, whole=whole), chosen_on)
    plan = Plan(
        layers=tuple(model.facts.layers),
        excluded=excluded_layers(model.facts.layers, settings.include, settings.exclude),
        skipped=tuple(model.facts.skipped),
        inputs=tuple(model.facts.inputs),
        outputs=tuple(model.facts.outputs),
        folded_batch_norms=model.facts.folded_batch_norms,
        folding_difference=folding.difference(job, model, calibration),
        population=dataset.samples,
        samples=samples,
        seed=settings.seed,
        shards=(*searched, *held_out),
        held_out=len(held_out),
        batch_size=size,
        calibration_samples=calibration_samples,
        calibration_shards=cut_calibration(calibration_samples, size),
        has_labels=dataset.targets is not None,
        costs=model.facts.costs,
        cost_per_layer=model.facts.cost_per_layer,
    )
    environment = environment_of(job) | {"libraries": dict(model.facts.libraries)}
    return Prepared(plan, environment, _warnings(job, plan))


def _held_out(settings: SweepSettings, samples: int) -> int:
    """How many samples the choice does not see: none where no list is searched for by prediction.

    One is left on each side at least.
    """
    if not settings.predicts or not settings.selection.holdout:
        return 0
    return min(max(round(samples * settings.selection.holdout), 1), samples - 1)


def _shards(job: Job, dataset: BoundEvaluationSet, samples: int, *, whole: bool) -> tuple[Shard, ...]:
    """``whole``: one shard, where memory allows and nothing else was asked for."""
    if not samples:
        return ()
    settings = job.settings
    size = settings.shard_size
    if whole and size is None and settings.method is not SweepMethod.RACING:
        size = samples
    shards = cut_shards(samples, size, bytes_of_sample=_bytes_of_sample(dataset))
    if settings.method is not SweepMethod.RACING or settings.shard_size is not None:
        return shards
    return shards_of(racing.cut(samples, shards[0].stop))


def _bytes_of_sample(dataset: BoundEvaluationSet) -> int:
    first = next(iter(dataset.batches(np.arange(1), 1)))
    return sum(each.nbytes for each in first.inputs.values())


def _samples(dataset: BoundEvaluationSet, wanted: int | None) -> int:
    if wanted is not None and wanted > dataset.samples:
        raise SweepFailure(
            f"samples: {wanted} were asked for, but the evaluation set holds {dataset.samples}", code="invalid-input"
        )
    return wanted or dataset.samples


def _warnings(job: Job, plan: Plan) -> Warnings:
    found: Warnings = []
    if plan.calibration_samples and job.calibration.sha256 == job.dataset.sha256:  # whatever the preprocessing
        message = (
            f"activation ranges were calibrated on {plan.calibration_samples} samples of the evaluation set itself; "
            "the measured drops may be too small. Give calibration.dataset to avoid this."
        )
        found.append({"code": "calibrated-on-evaluation-set", "message": message})
    if plan.folding_difference is not None:
        found += folding.warnings(plan.folding_difference)
    if plan.skipped:
        names = ", ".join(each.name for each in plan.skipped[:5])
        message = f"{len(plan.skipped)} quantizable operations are not layers of this sweep, for example {names}"
        found.append({"code": "operations-skipped", "message": message})
    return found
