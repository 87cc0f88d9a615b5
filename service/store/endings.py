"""The end of a sweep: its last state, why, and what becomes of the work that is left."""

from sqlalchemy.orm import Session

from service.domain.states import SweepState, UnitState, move_sweep
from service.store.clock import now
from service.store.tables import SweepRow
from service.store.units import end_units

LEFTOVER = {SweepState.FAILED: UnitState.FAILED, SweepState.CANCELLED: UnitState.CANCELLED}


def end_sweep(
    session: Session, sweep: SweepRow, state: SweepState, *, code: str | None = None, problem: str | None = None
) -> None:
    """Move a locked sweep to a terminal state and end its open units; raises IllegalMove where it has ended."""
    sweep.state = move_sweep(SweepState(sweep.state), state)
    sweep.problem_code, sweep.problem = code, problem
    sweep.finished_at = now()
    if state in LEFTOVER:
        end_units(session, sweep.id, LEFTOVER[state])
    session.flush()
