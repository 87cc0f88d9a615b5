"""Selections that were asked of decided sweeps: kept, measured, cancelled, deleted. They go with their sweep.

Whoever changes one locks its sweep first, and then the selection; so does a worker that finishes a unit of it.
"""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.domain.errors import NotFound
from service.domain.selections import Selected, SelectionQuestion
from service.domain.states import SelectionState, UnitKind, move_selection
from service.store import sweeps
from service.store.clock import now
from service.store.endings import note_end
from service.store.identifiers import Prefix, could_be_id, new_id
from service.store.tables import SelectionRow, UnitRow
from service.store.units import NewUnit, add_units, is_held


def add(session: Session, sweep_id: str, question: SelectionQuestion, found: Selected) -> SelectionRow:
    """The answered selection; raises NotFound where the sweep was deleted meanwhile."""
    sweeps.locked(session, sweep_id)
    measured = found.state == "verified"
    row = SelectionRow(
        id=new_id(Prefix.SELECTION),
        sweep_id=sweep_id,
        settings=question.model_dump(mode="json"),
        state=SelectionState.DONE if measured else SelectionState.PREDICTED,
        result=found.model_dump(mode="json"),
        round=0,
        cancel_requested=False,
        created_at=now(),
        finished_at=now() if measured else None,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def verify(session: Session, sweep_id: str, selection_id: str) -> tuple[SelectionRow, str | None]:
    """The selection with its measuring queued, and the queue to hint at.

    None, and nothing is queued, unless it is predicted only. Raises NotFound.
    """
    sweep = sweeps.locked(session, sweep_id)
    row = _locked(session, sweep_id, selection_id)
    if row.state != SelectionState.PREDICTED:
        return row, None
    row.state = move_selection(SelectionState(row.state), SelectionState.QUEUED)
    add_units(session, [NewUnit(UnitKind.SELECT, row.id, sweep.queue, sweep_id=sweep.id)])
    session.refresh(row)
    return row, sweep.queue


def of_sweep(session: Session, sweep_id: str) -> list[SelectionRow]:
    """All of a sweep, the oldest first; raises NotFound where there is no such sweep."""
    sweeps.get(session, sweep_id)
    query = select(SelectionRow).where(SelectionRow.sweep_id == sweep_id)
    return list(session.scalars(query.order_by(SelectionRow.created_at, SelectionRow.id)))


def get(session: Session, sweep_id: str, selection_id: str) -> SelectionRow:
    """One of them; raises NotFound."""
    sweeps.get(session, sweep_id)
    row = session.get(SelectionRow, selection_id) if could_be_id(selection_id) else None
    return _present(row, sweep_id, selection_id)


def lock(session: Session, selection_id: str) -> SelectionRow | None:
    """The selection's row, locked until the transaction ends; None where it was deleted."""
    return session.get(SelectionRow, selection_id, with_for_update=True, populate_existing=True)


def cancel(session: Session, sweep_id: str, selection_id: str) -> SelectionRow:
    """Cancel its measuring: at once where no worker holds a unit of it, else soon. Raises NotFound.

    One that nothing is measured for stays as it is.
    """
    sweeps.locked(session, sweep_id)
    row = _locked(session, sweep_id, selection_id)
    if not SelectionState(row.state).working:
        return row
    row.cancel_requested = True
    if not is_held(session, row.id):
        end(session, row, SelectionState.CANCELLED)
    session.flush()
    session.refresh(row)
    return row


def end(
    session: Session, row: SelectionRow, state: SelectionState, *, code: str | None = None, problem: str | None = None
) -> None:
    """Move a locked selection to a terminal state and end its open units; raises IllegalMove where it has ended."""
    note_end(session, row, move_selection(SelectionState(row.state), state), code=code, problem=problem)


def remove(session: Session, sweep_id: str, selection_id: str) -> None:
    """Delete one with its work, however far it is; raises NotFound."""
    sweeps.locked(session, sweep_id)
    row = _locked(session, sweep_id, selection_id)
    session.execute(delete(UnitRow).where(UnitRow.subject_id == row.id))
    session.delete(row)
    session.flush()


def _locked(session: Session, sweep_id: str, selection_id: str) -> SelectionRow:
    return _present(lock(session, selection_id) if could_be_id(selection_id) else None, sweep_id, selection_id)


def _present(row: SelectionRow | None, sweep_id: str, selection_id: str) -> SelectionRow:
    if row is None or row.sweep_id != sweep_id:
        raise NotFound(f"sweep {sweep_id} has no selection {selection_id!r}", code="selection-not-found")
    return row
