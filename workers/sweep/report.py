"""Phase 6: everything that the sweep found, as files."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select

from service.domain.file_check import FileCheck
from service.domain.layers import ALL_INT8
from service.domain.results import Decision, LayerResult, VariantScore
from service.domain.states import UnitState
from service.reports import fallback, interactions_csv, layers_csv, page
from service.reports.report import (
    CacheSection,
    CalibrationSection,
    Cost,
    DatasetSection,
    MetricSection,
    ModelSection,
    Report,
    Warning_,
    to_json,
)
from service.store.clock import spent
from service.store.tables import LayerRow, ScoreRow, UnitRow
from workers.engine.probe import gram, interactions
from workers.engine.probe_sums import ProbeSums
from workers.sweep import exports, mixed_check
from workers.sweep.job import Job
from workers.sweep.outcome import Artifact, Reported
from workers.sweep.probed import probe_sums
from workers.sweep.warnings import probe_warnings, result_warnings


def run(job: Job) -> Reported:
    """Write the report's files."""
    probes = probe_sums(job).sums
    decision = Decision.model_validate(job.sweep.decision) if job.sweep.decision else None
    exported = exports.make(job, decision)
    report = make(job, probes, decision, exported.check)
    files = [
        ("report.json", "application/json", to_json(report)),
        ("report.html", "text/html; charset=utf-8", page.to_html(report)),
        ("layers.csv", "text/csv; charset=utf-8", layers_csv.to_csv(report.layers, report.costs).encode()),
        ("fallback_layers.json", "application/json", fallback.to_json(report)),
        *exported.files,
    ]
    if probes is not None:
        pairs = [pair for measure in probes.measures for pair in interactions(gram(probes, measure), measure)]
        names = {each.id: each.name for each in job.plan.layers}
        files.append(("interactions.csv", "text/csv; charset=utf-8", interactions_csv.to_csv(pairs, names).encode()))
    return Reported(tuple(Artifact(name, kind, job.context.blobs.put(content)) for name, kind, content in files))


def make(job: Job, probes: ProbeSums | None, decision: Decision | None, check: FileCheck | None) -> Report:
    """The report, from rows, what was probed, and what the exported file was found to be worth."""
    with job.context.database.read() as session:
        layer_rows = session.scalars(
            select(LayerRow).where(LayerRow.sweep_id == job.sweep_id).order_by(LayerRow.position)
        )
        layers = tuple(LayerResult.model_validate(row.document) for row in layer_rows)
        score_rows = session.scalars(
            select(ScoreRow).where(ScoreRow.sweep_id == job.sweep_id).order_by(ScoreRow.variant)
        )
        controls = {row.variant: VariantScore.model_validate(row.document) for row in score_rows}
        query = select(UnitRow.kind, func.sum(spent(UnitRow.started_at, UnitRow.finished_at))).where(
            UnitRow.subject_id == job.sweep_id, UnitRow.state == UnitState.DONE
        )
        seconds = {kind: round(taken or 0.0, 3) for kind, taken in session.execute(query.group_by(UnitRow.kind))}
    plan, settings = job.plan, job.settings
    metric = job.metric()
    return Report(
        sweep_id=job.sweep_id,
        created_at=_time(job.sweep.created_at),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=settings,
        model=ModelSection(
            id=job.model.id,
            name=job.model.name,
            sha256=job.model.sha256,
            format=job.model.format,
            inputs=plan.inputs,
            outputs=plan.outputs,
            folded_batch_norms=plan.folded_batch_norms,
            folding_difference=plan.folding_difference,
        ),
        dataset=DatasetSection(
            id=job.dataset.id,
            name=job.dataset.name,
            sha256=job.dataset.sha256,
            population=plan.population,
            samples=plan.samples,
            class_counts=job.dataset.info.get("class_counts") or None,
        ),
        calibration=_calibration(job),
        metric=MetricSection(
            name=metric.name, output=metric.output, higher_is_better=metric.higher_is_better, unit=metric.unit
        ),
        controls=controls,
        layers=layers,
        skipped=plan.skipped,
        decision=decision,
        exported=check,
        warnings=tuple(
            Warning_(**each)
            for each in [
                *job.sweep.warnings,
                *result_warnings(controls, job.dataset.info, metric.name),
                *_probe_warnings(probes, controls),
                *(mixed_check.warnings(check) if check is not None else ()),
            ]
        ),
        environment=job.sweep.environment,
        costs=plan.costs,
        cost=Cost(seconds=seconds, variants=_measured(layers) + len(controls), shards=len(plan.shards)),
    )


def _calibration(job: Job) -> CalibrationSection:
    settings, cache = job.settings.calibration, job.cache
    if cache is not None:
        held = CacheSection(id=cache.id, name=cache.name, sha256=cache.sha256, **_told(cache.info))
        return CalibrationSection(
            method=None, percentile=None, dataset_id=None, dataset_name=None, samples=0, cache=held
        )
    return CalibrationSection(
        method=settings.method,
        percentile=settings.parameters.get("percentile"),
        quantile=settings.parameters.get("quantile"),
        cutoff=settings.parameters.get("cutoff"),
        dataset_id=job.calibration.id,
        dataset_name=job.calibration.name,
        samples=job.plan.calibration_samples,
    )


def _told(info: Mapping[str, Any]) -> dict[str, Any]:
    return {name: info[name] for name in ("algorithm", "tensorrt_version", "entries")}


def _probe_warnings(probes: ProbeSums | None, controls: Mapping[str, VariantScore]) -> list[dict[str, str]]:
    measured = controls[ALL_INT8].measures.get("mse") if ALL_INT8 in controls else None
    if probes is None or measured is None or measured.value is None:
        return []
    together = gram(probes, "mse")
    return probe_warnings(together.predict(together.layers), measured.value)


def _measured(layers: Sequence[LayerResult]) -> int:
    return sum(each.score is not None for each in layers)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
