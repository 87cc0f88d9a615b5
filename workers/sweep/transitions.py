"""What follows when a unit is done: the next phase's units, in the transaction that ends the unit.

Fan-in is counted in rows: the worker that finishes the last unit of a phase queues the next phase.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.domain.layers import CONTROLS
from service.domain.settings import SweepSettings
from service.domain.states import Phase, SweepState, UnitKind, UnitState, move_sweep
from service.store.clock import now
from service.store.endings import end_sweep
from service.store.tables import SweepRow, UnitRow
from service.store.units import NewUnit, add_units, units_of
from workers.sweep.outcome import (
    Calibrated,
    Counted,
    Decided,
    Measured,
    NextRound,
    Outcome,
    Prepared,
    Probed,
    Reported,
    Scouted,
)
from workers.sweep.plan import MERGE_ROUND

PROBE_COST = 6
"""In evaluations (docs/benchmarks.md); it only tells how far a sweep is."""


def advance(session: Session, sweep: SweepRow, outcome: Outcome) -> int:
    """Write what the unit found into the (locked) sweep and queue what follows; how many units were queued."""
    match outcome:
        case Prepared():
            return _prepared(session, sweep, outcome)
        case Counted():
            if _still_open(session, sweep.id, UnitKind.CALIBRATE):
                return 0
            # what is left takes next to nothing of the samples, so that it has no cost
            last = NewUnit(UnitKind.CALIBRATE, sweep.id, sweep.backend, round=MERGE_ROUND)
            return _queue(session, sweep, Phase.CALIBRATE, [last])
        case Calibrated():
            return _calibrated(session, sweep, outcome)
        case Probed():
            if _still_open(session, sweep.id, UnitKind.PROBE):
                return 0
            sweep.warnings = [*sweep.warnings, *outcome.warnings]
            controls = _shard_units(sweep, UnitKind.MEASURE, sweep.plan["shards"], evaluations=len(CONTROLS))
            return _queue(session, sweep, Phase.MEASURE, controls)
        case Scouted():
            if _still_open(session, sweep.id, UnitKind.SCOUT):
                return 0
            return _measure(session, sweep, shards=outcome.shards, variants=outcome.variants)
        case Measured():
            kind = UnitKind(outcome.kind)
            if _still_open(session, sweep.id, kind):
                return 0
            if kind is UnitKind.MEASURE:
                sweep.warnings = [*sweep.warnings, *_reused(session, sweep.id)]
            return _queue(
                session, sweep, Phase.SELECT, [NewUnit(UnitKind.SELECT, sweep.id, sweep.backend, round=sweep.round)]
            )
        case NextRound():
            return _next_round(session, sweep, outcome)
        case Decided():
            sweep.decision = outcome.decision.model_dump(mode="json")
            return _queue(session, sweep, Phase.REPORT, [NewUnit(UnitKind.REPORT, sweep.id, sweep.backend)])
        case Reported():
            end_sweep(session, sweep, SweepState.SUCCEEDED)
            return 0


def _prepared(session: Session, sweep: SweepRow, outcome: Prepared) -> int:
    sweep.state = move_sweep(SweepState(sweep.state), SweepState.RUNNING)
    sweep.started_at = now()
    sweep.plan = outcome.plan.model_dump(mode="json")
    sweep.environment = outcome.environment
    # a worker has it now, so the warning that none was running is void
    kept = [each for each in sweep.warnings if each["code"] != "no-worker"]
    sweep.warnings = [*kept, *outcome.warnings]
    units = _shard_units(sweep, UnitKind.CALIBRATE, sweep.plan["calibration_shards"], evaluations=1)
    return _queue(session, sweep, Phase.CALIBRATE, units)


def _calibrated(session: Session, sweep: SweepRow, outcome: Calibrated) -> int:
    statistics = {layer: each.model_dump(mode="json") for layer, each in outcome.statistics.items()}
    sweep.amax = {"amax": outcome.amax, "failed": outcome.failed, "statistics": statistics}
    sweep.warnings = [*sweep.warnings, *outcome.warnings]
    settings = SweepSettings.model_validate(sweep.settings)
    if settings.method.probes:
        units = _shard_units(sweep, UnitKind.PROBE, sweep.plan["shards"], evaluations=PROBE_COST)
        return _queue(session, sweep, Phase.PROBE, units)
    if settings.scouts:
        units = _shard_units(sweep, UnitKind.SCOUT, sweep.plan["shards"], evaluations=1)
        return _queue(session, sweep, Phase.SCOUT, units)
    return _measure(session, sweep, shards=outcome.shards, variants=outcome.variants)


def _measure(session: Session, sweep: SweepRow, *, shards: int, variants: int) -> int:
    units = _shard_units(sweep, UnitKind.MEASURE, sweep.plan["shards"][:shards], evaluations=variants)
    return _queue(session, sweep, Phase.MEASURE, units)


def _shard_units(
    sweep: SweepRow, kind: UnitKind, shards: Sequence[Mapping[str, int]], *, evaluations: int
) -> list[NewUnit]:
    """One for each stretch of samples; ``evaluations``: what each sample of it costs."""
    return [
        NewUnit(
            kind,
            sweep.id,
            sweep.backend,
            ordinal=ordinal,
            payload=dict(shard),
            cost=float(evaluations * (shard["stop"] - shard["start"])),
        )
        for ordinal, shard in enumerate(shards)
    ]


def _next_round(session: Session, sweep: SweepRow, outcome: NextRound) -> int:
    sweep.round += 1
    shards = sweep.plan["shards"]
    new = [
        NewUnit(
            UnitKind.VERIFY,
            sweep.id,
            sweep.backend,
            round=sweep.round,
            ordinal=ordinal,
            payload={**shards[ordinal], "variants": list(variants)},
            cost=float((len(variants) + 1) * (shards[ordinal]["stop"] - shards[ordinal]["start"])),
        )
        for ordinal, variants in sorted(outcome.variants.items())
    ]
    return _queue(session, sweep, Phase.VERIFY, new)


def _queue(session: Session, sweep: SweepRow, phase: Phase, new: list[NewUnit]) -> int:
    sweep.phase = phase
    add_units(session, [_of(sweep, unit) for unit in new])
    return len(new)


def _of(sweep: SweepRow, unit: NewUnit) -> NewUnit:
    return NewUnit(**{**unit.__dict__, "sweep_id": sweep.id})


def _still_open(session: Session, sweep_id: str, kind: UnitKind) -> bool:
    query = select(func.count()).where(
        UnitRow.sweep_id == sweep_id, UnitRow.kind == kind, UnitRow.state != UnitState.DONE
    )
    return bool(session.scalar(query))


def _reused(session: Session, sweep_id: str) -> list[dict[str, str]]:
    """Says so where results of earlier sweeps stand in the table."""
    rows = units_of(session, sweep_id, UnitKind.MEASURE)
    found, total = (sum(row.result.get(name, 0) for row in rows) for name in ("found", "variants"))
    if not found:
        return []
    message = (
        f"{found} of {total} measurements (a variant on a shard of samples) were not made again: an earlier sweep had "
        "made them with the same model, samples, ranges and versions"
    )
    return [{"code": "results-reused", "message": message}]
