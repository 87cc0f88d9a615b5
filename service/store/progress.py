"""How far a sweep or a selection is and how long it will still take, computed from its work units."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from service.domain.states import Phase, SelectionState, SweepState, UnitKind, UnitState
from service.store.clock import now
from service.store.tables import SelectionRow, SweepRow, UnitRow

# where each phase begins and ends on the way from 0 to 1: measuring is nearly all of it
SPAN = {
    Phase.PREPARE: (0.0, 0.02),
    Phase.CALIBRATE: (0.02, 0.07),
    Phase.PROBE: (0.07, 0.6),
    Phase.SCOUT: (0.07, 0.4),
    Phase.MEASURE: (0.07, 0.85),
    Phase.SELECT: (0.85, 0.97),
    Phase.VERIFY: (0.85, 0.97),
    Phase.REPORT: (0.97, 1.0),
}
# verification is planned only after measuring; until then it is taken for this share of the measuring
EXPECTED_VERIFY = 0.15
COSTED = (UnitKind.PROBE, UnitKind.SCOUT, UnitKind.MEASURE, UnitKind.VERIFY)
BEFORE_MEASURING = (UnitKind.PROBE, UnitKind.SCOUT)
# a sweep that has not ended has at least its report to write, which no unit's cost counts
LEAST_SECONDS = 1.0


@dataclass(frozen=True)
class Round:
    """The units of one kind and round, summed. ``first_start``: seconds since 1970, None before any started."""

    kind: UnitKind
    round: int
    units: int
    units_done: int
    cost: float
    cost_done: float
    first_start: float | None


@dataclass(frozen=True)
class Progress:
    """``fraction`` 0 to 1; ``estimated`` while later phases are not planned yet; ``eta_seconds`` None until known.

    Nobody knows how many lists will be verified: until the report is being written, ``eta_seconds`` takes it that one
    more round follows, so it may end early but never claims that nothing is left.
    """

    fraction: float
    estimated: bool
    units_done: int
    units_total: int
    eta_seconds: float | None


def of_sweep(session: Session, sweep: SweepRow) -> Progress:
    """The progress of one sweep."""
    return compute(_rounds(session, sweep.id), SweepState(sweep.state), Phase(sweep.phase), _clock(session))


def mark(session: Session, sweep_id: str) -> tuple[int, int, float] | None:
    """What differs once the sweep or its progress has changed, for less than the progress costs; None: it is gone."""
    mine = UnitRow.sweep_id == sweep_id
    done = select(func.count()).where(mine, UnitRow.state == UnitState.DONE).scalar_subquery()
    begun = select(func.sum(UnitRow.progress)).where(mine, UnitRow.state == UnitState.LEASED).scalar_subquery()
    row = session.execute(select(SweepRow.revision, done, func.coalesce(begun, 0.0)).where(SweepRow.id == sweep_id))
    found = row.one_or_none()
    return None if found is None else (int(found[0]), int(found[1]), float(found[2]))


def of_selection(session: Session, selection: SelectionRow) -> Progress | None:
    """The progress of what is measured for a selection; None where nothing ever was."""
    rounds = _rounds(session, selection.id)
    return compute_selection(rounds, SelectionState(selection.state), _clock(session)) if rounds else None


def _clock(session: Session) -> float:
    clock = session.scalar(select(now()))
    assert clock is not None
    return float(clock)


def _rounds(session: Session, subject_id: str) -> list[Round]:
    done = UnitRow.state == UnitState.DONE
    share = case((done, 1.0), (UnitRow.state == UnitState.LEASED, UnitRow.progress), else_=0.0)
    query = (
        select(
            UnitRow.kind,
            UnitRow.round,
            func.count(),
            func.sum(case((done, 1), else_=0)),
            func.sum(UnitRow.cost),
            func.sum(UnitRow.cost * share),
            func.min(UnitRow.started_at),
        )
        .where(UnitRow.subject_id == subject_id)
        .group_by(UnitRow.kind, UnitRow.round)
    )
    return [Round(UnitKind(row[0]), *row[1:]) for row in session.execute(query).tuples()]


def compute(rounds: Sequence[Round], state: SweepState, phase: Phase, clock: float) -> Progress:
    """The progress at ``clock`` (seconds since 1970, by the clock that stamped the units)."""
    units, units_done = sum(each.units for each in rounds), sum(each.units_done for each in rounds)
    if state is SweepState.SUCCEEDED:
        return Progress(1.0, False, units_done, units, 0.0)
    begin, end = SPAN[phase]
    if phase is Phase.MEASURE:
        kinds = {each.kind for each in rounds}
        begin = max([begin, *(SPAN[Phase(each)][1] for each in BEFORE_MEASURING if each in kinds)])
    fraction = begin + (end - begin) * _within(rounds, phase)
    eta = None if state.terminal else _eta(rounds, phase, clock)
    return Progress(round(fraction, 4), phase is not Phase.REPORT, units_done, units, eta)


def compute_selection(rounds: Sequence[Round], state: SelectionState, clock: float) -> Progress:
    """The same of a selection, all of which is verification."""
    units, units_done = sum(each.units for each in rounds), sum(each.units_done for each in rounds)
    if state is SelectionState.DONE:
        return Progress(1.0, False, units_done, units, 0.0)
    fraction = _within(rounds, Phase.VERIFY)
    eta = _eta(rounds, Phase.VERIFY, clock) if state.working else None
    return Progress(round(fraction, 4), True, units_done, units, eta)


def _within(rounds: Sequence[Round], phase: Phase) -> float:
    if phase in (Phase.SELECT, Phase.VERIFY):
        # nobody knows how many rounds there will be: each goes half of the way that is left, so it never runs back
        verified = sum(each.cost_done / each.cost for each in rounds if each.kind is UnitKind.VERIFY and each.cost)
        return float(1 - 0.5**verified)
    own = [each for each in rounds if each.kind == phase.value]
    cost = sum(each.cost for each in own)
    return sum(each.cost_done for each in own) / cost if cost else 0.0


def _eta(rounds: Sequence[Round], phase: Phase, clock: float) -> float | None:
    costed = [each for each in rounds if each.kind in COSTED]
    starts = [each.first_start for each in costed if each.first_start is not None]
    done = sum(each.cost_done for each in costed)
    if not starts or done <= 0 or clock <= min(starts):
        return None
    left = sum(each.cost for each in costed) - done
    if phase is not Phase.REPORT:
        left += _expected(rounds)
    return round(max(LEAST_SECONDS, left * (clock - min(starts)) / done), 1)


def _expected(rounds: Sequence[Round]) -> float:
    """The cost of the verification that is not planned yet: one more round like the last, or a share of the table's."""
    verified = [each for each in rounds if each.kind is UnitKind.VERIFY]
    if verified:
        return max(verified, key=lambda each: each.round).cost
    return EXPECTED_VERIFY * sum(each.cost for each in rounds if each.kind in COSTED)
