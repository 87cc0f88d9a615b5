"""The end of a sweep or of a selection: its last state, why, and what becomes of the work that is left."""

from sqlalchemy.orm import Session

from service.domain.states import SelectionState, SweepState, UnitState, move_sweep
from service.store.clock import now
from service.store.tables import SelectionRow, SweepRow
from service.store.units import end_units

# by the states' words, which are those of selections too
LEFTOVER: dict[str, UnitState] = {SweepState.FAILED: UnitState.FAILED, SweepState.CANCELLED: UnitState.CANCELLED}


def end_sweep(
    session: Session, sweep: SweepRow, state: SweepState, *, code: str | None = None, problem: str | None = None
) -> None:
    """Move a locked sweep to a terminal state and end its open units; raises IllegalMove where it has ended."""
    note_end(session, sweep, move_sweep(SweepState(sweep.state), state), code=code, problem=problem)


def note_end(
    session: Session,
    row: SweepRow | SelectionRow,
    state: SweepState | SelectionState,
    *,
    code: str | None,
    problem: str | None,
) -> None:
    """Note the last state of a locked row, a legal one, and end its open units."""
    row.state = state
    row.problem_code, row.problem = code, problem
    row.finished_at = now()
    if state in LEFTOVER:
        end_units(session, row.id, LEFTOVER[state])
    session.flush()
