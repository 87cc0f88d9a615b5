"""What follows when a unit is done: the next phase's units, in the transaction that ends the unit.

Fan-in is counted in rows: the worker that finishes the last unit of a phase queues the next phase.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.domain.errors import SweepFailure
from service.domain.layers import CONTROLS, LAYER_PREFIX
from service.domain.settings import SweepSettings
from service.domain.states import Phase, SweepState, UnitKind, UnitState, move_sweep
from service.store.clock import now
from service.store.endings import end_sweep
from service.store.tables import SweepRow, UnitRow
from service.store.units import NewUnit, add_units, units_of
from workers.sweep.outcome import (
    Calibrated,
    Chosen,
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
from workers.sweep.plan import CONTROLS_ROUND, MERGE_ROUND, Plan, layer_groups

PROBE_COST = 6
"""In evaluations (docs/benchmarks.md); it only tells how far a sweep is."""


def advance(session: Session, sweep: SweepRow, outcome: Outcome) -> int:
    """Write what the unit found into the (locked) sweep and queue what follows; how many units were queued."""
    if isinstance(outcome, NextRound | Decided) and outcome.costs is not None:
        sweep.plan = {**sweep.plan, "costs": outcome.costs.model_dump(mode="json")}
    match outcome:
        case Prepared():
            return _prepared(session, sweep, outcome)
        case Counted():
            if still_open(session, sweep.id, UnitKind.CALIBRATE):
                return 0
            return _queue(session, sweep, Phase.CALIBRATE, [_last_calibration(sweep)])
        case Calibrated():
            return _calibrated(session, sweep, outcome)
        case Probed():
            if still_open(session, sweep.id, UnitKind.PROBE):
                return 0
            sweep.warnings = [*sweep.warnings, *outcome.warnings]
            controls = _shard_units(sweep, UnitKind.MEASURE, _searched(sweep), evaluations=len(CONTROLS))
            return _queue(session, sweep, Phase.MEASURE, controls)
        case Scouted():
            if still_open(session, sweep.id, UnitKind.SCOUT):
                return 0
            return _measure(session, sweep, shards=outcome.shards, variants=outcome.variants)
        case Measured():
            kind = UnitKind(outcome.kind)
            if still_open(session, sweep.id, kind):
                return 0
            if kind is UnitKind.MEASURE and _controls_follow(session, sweep):
                return _controls(session, sweep)
            if kind is UnitKind.MEASURE:
                sweep.warnings = [*sweep.warnings, *_reused(session, sweep.id)]
            return _queue(
                session, sweep, Phase.SELECT, [NewUnit(UnitKind.SELECT, sweep.id, sweep.queue, round=sweep.round)]
            )
        case NextRound():
            return _next_round(session, sweep, outcome)
        case Decided():
            sweep.decision = outcome.decision.model_dump(mode="json")
            if outcome.evidence is not None:
                sweep.evidence = outcome.evidence.model_dump(mode="json")
            return _queue(session, sweep, Phase.REPORT, [NewUnit(UnitKind.REPORT, sweep.id, sweep.queue)])
        case Reported():
            end_sweep(session, sweep, SweepState.SUCCEEDED)
            return 0
        case Chosen():
            raise AssertionError("only a selection is answered so")


def _prepared(session: Session, sweep: SweepRow, outcome: Prepared) -> int:
    sweep.state = move_sweep(SweepState(sweep.state), SweepState.RUNNING)
    sweep.started_at = now()
    sweep.plan = outcome.plan.model_dump(mode="json")
    sweep.environment = outcome.environment
    # a worker has it now, so the warning that none was running is void
    kept = [each for each in sweep.warnings if each["code"] != "no-worker"]
    sweep.warnings = [*kept, *outcome.warnings]
    units = _shard_units(sweep, UnitKind.CALIBRATE, sweep.plan["calibration_shards"], evaluations=1)
    return _queue(session, sweep, Phase.CALIBRATE, units or [_last_calibration(sweep)])


def _last_calibration(sweep: SweepRow) -> NewUnit:
    """What is left when all is counted, or nothing had to be: it takes next to no samples, so that it has no cost."""
    return NewUnit(UnitKind.CALIBRATE, sweep.id, sweep.queue, round=MERGE_ROUND)


def _calibrated(session: Session, sweep: SweepRow, outcome: Calibrated) -> int:
    statistics = {layer: each.model_dump(mode="json") for layer, each in outcome.statistics.items()}
    sweep.amax = {"amax": outcome.amax, "failed": outcome.failed, "statistics": statistics}
    sweep.warnings = [*sweep.warnings, *outcome.warnings]
    settings = SweepSettings.model_validate(sweep.settings)
    if settings.method.probes:
        units = _shard_units(sweep, UnitKind.PROBE, _searched(sweep), evaluations=PROBE_COST)
        return _queue(session, sweep, Phase.PROBE, units)
    if settings.scouts:
        units = _shard_units(sweep, UnitKind.SCOUT, sweep.plan["shards"], evaluations=1)
        return _queue(session, sweep, Phase.SCOUT, units)
    if outcome.groups:
        return _queue(session, sweep, Phase.MEASURE, _group_units(sweep, UnitKind.MEASURE, outcome.groups))
    return _measure(session, sweep, shards=outcome.shards, variants=outcome.variants)


def _measure(session: Session, sweep: SweepRow, *, shards: int, variants: int) -> int:
    units = _shard_units(sweep, UnitKind.MEASURE, _searched(sweep)[:shards], evaluations=variants)
    return _queue(session, sweep, Phase.MEASURE, units)


def _searched(sweep: SweepRow) -> Sequence[Mapping[str, int]]:
    """The shards that the table is measured on."""
    shards: Sequence[Mapping[str, int]] = sweep.plan["shards"]
    return shards[: len(shards) - sweep.plan.get("held_out", 0)]


def _shard_units(
    sweep: SweepRow, kind: UnitKind, shards: Sequence[Mapping[str, int]], *, evaluations: int
) -> list[NewUnit]:
    """One for each stretch of samples; ``evaluations``: what each sample of it costs."""
    return [
        NewUnit(
            kind,
            sweep.id,
            sweep.queue,
            ordinal=ordinal,
            payload=dict(shard),
            cost=float(evaluations * (shard["stop"] - shard["start"])),
        )
        for ordinal, shard in enumerate(shards)
    ]


def _group_units(sweep: SweepRow, kind: UnitKind, groups: Sequence[Sequence[str]], *, round_: int = 0) -> list[NewUnit]:
    """One for each group of variants (names) and each shard of the table; a group's shards follow each other."""
    shards = sweep.plan["shards"]
    return [
        _unit(sweep, kind, group, ordinal=number * len(shards) + shard, round_=round_)
        for number, group in enumerate(groups)
        for shard in range(len(_searched(sweep)))
    ]


def _unit(sweep: SweepRow, kind: UnitKind, variants: Sequence[str], *, ordinal: int, round_: int) -> NewUnit:
    """These variants on the shard of this ordinal."""
    shards = sweep.plan["shards"]
    shard = shards[ordinal % len(shards)]
    return NewUnit(
        kind,
        sweep.id,
        sweep.queue,
        round=round_,
        ordinal=ordinal,
        payload={**shard, "variants": list(variants)},
        cost=float((len(variants) + 1) * (shard["stop"] - shard["start"])),
    )


def _controls_follow(session: Session, sweep: SweepRow) -> bool:
    """Whether only the layers are measured yet."""
    layers_first = Plan.model_validate(sweep.plan).layers_first(SweepSettings.model_validate(sweep.settings))
    return layers_first and not units_of(session, sweep.id, UnitKind.MEASURE, round_=CONTROLS_ROUND)


def _controls(session: Session, sweep: SweepRow) -> int:
    """The controls, without the layers that failed by themselves."""
    failed = dict(sweep.amax["failed"])
    for row in units_of(session, sweep.id, UnitKind.MEASURE):
        failures: Mapping[str, str] = row.result["failures"]
        failed |= {name.removeprefix(LAYER_PREFIX): why for name, why in failures.items()}
    if not Plan.model_validate(sweep.plan).active(failed):
        why = next(iter(failed.values()))
        raise SweepFailure(f"no layer can be measured in int8; the first one: {why}", code="no-layers")
    sweep.amax = {**sweep.amax, "failed": failed}
    units = _group_units(sweep, UnitKind.MEASURE, [CONTROLS], round_=CONTROLS_ROUND)
    # two engines of many; without a cost, as the share that is done would run back
    return _queue(session, sweep, Phase.MEASURE, [replace(each, cost=0.0) for each in units])


def _next_round(session: Session, sweep: SweepRow, outcome: NextRound) -> int:
    sweep.round += 1
    return _queue(session, sweep, Phase.VERIFY, verify_units(sweep, outcome, round_=sweep.round))


def verify_units(sweep: SweepRow, outcome: NextRound, *, round_: int) -> list[NewUnit]:
    """One for each shard, and for each group of lists where a list is costly to prepare."""
    shards, by_layer = sweep.plan["shards"], Plan.model_validate(sweep.plan).cost_per_layer
    return [
        _unit(sweep, UnitKind.VERIFY, group, ordinal=number * len(shards) + shard, round_=round_)
        for shard, variants in sorted(outcome.variants.items())
        for number, group in enumerate(layer_groups(variants) if by_layer else [variants])
    ]


def _queue(session: Session, sweep: SweepRow, phase: Phase, new: list[NewUnit]) -> int:
    sweep.phase = phase
    add_units(session, [_of(sweep, unit) for unit in new])
    return len(new)


def _of(sweep: SweepRow, unit: NewUnit) -> NewUnit:
    return NewUnit(**{**unit.__dict__, "sweep_id": sweep.id})


def still_open(session: Session, subject_id: str, kind: UnitKind) -> bool:
    """Whether units of this kind of a sweep or a selection are not done yet."""
    query = select(func.count()).where(
        UnitRow.subject_id == subject_id, UnitRow.kind == kind, UnitRow.state != UnitState.DONE
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
