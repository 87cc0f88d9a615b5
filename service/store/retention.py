"""Sweeps that ended long ago, which an operator does not want to keep."""

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from service.domain.states import TERMINAL_SWEEP_STATES, SelectionState
from service.store import audit, sweeps
from service.store.clock import now
from service.store.database import Database
from service.store.identifiers import Prefix, new_id
from service.store.tables import SelectionRow, SweepRow
from service.store.units import lock_sweep

DAY_SECONDS = 86_400.0
ACTOR = "retention"


def outlived(session: Session, days: float) -> list[str]:
    """The sweeps that ended more than so many days ago, oldest first; none that a selection is measured from now."""
    return list(session.scalars(_outlived(days).order_by(SweepRow.finished_at, SweepRow.id)))


def remove_outlived(database: Database, days: float) -> list[str]:
    """Delete them as their owner could, each in a transaction of its own, and note it in the audit log; which.

    Their files are left over then.
    """
    with database.read() as session:
        found = outlived(session, days)
    return [sweep_id for sweep_id in found if _removed(database, sweep_id, days)]


def _removed(database: Database, sweep_id: str, days: float) -> bool:
    with database.write() as session:
        sweep = lock_sweep(session, sweep_id)
        still = session.scalar(_outlived(days).where(SweepRow.id == sweep_id))
        if sweep is None or still is None:  # somebody else was faster, or asked for a selection of it
            return False
        sweeps.remove(session, sweep_id)
        path = f"/v1/sweeps/{sweep_id}"
        request = new_id(Prefix.REQUEST)
        audit.add(session, audit.Deed(ACTOR, sweep.project_id, "delete_sweep", path, 204, request))
    return True


def _outlived(days: float) -> Select[str]:
    working = [each for each in SelectionState if each.working]
    measured = select(SelectionRow.id).where(SelectionRow.sweep_id == SweepRow.id, SelectionRow.state.in_(working))
    return select(SweepRow.id).where(
        SweepRow.state.in_(TERMINAL_SWEEP_STATES),
        SweepRow.finished_at < now() - days * DAY_SECONDS,
        ~measured.exists(),
    )
