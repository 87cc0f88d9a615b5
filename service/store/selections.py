"""Selections that were asked of decided sweeps: kept, listed, deleted. They go with their sweep."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.domain.errors import NotFound
from service.domain.selections import Selected, SelectionQuestion
from service.store import sweeps
from service.store.clock import now
from service.store.identifiers import Prefix, could_be_id, new_id
from service.store.tables import SelectionRow
from service.store.units import lock_sweep


def add(session: Session, sweep_id: str, question: SelectionQuestion, found: Selected) -> SelectionRow:
    """The answered selection; raises NotFound where the sweep was deleted meanwhile."""
    if lock_sweep(session, sweep_id) is None:
        sweeps.get(session, sweep_id)
    row = SelectionRow(
        id=new_id(Prefix.SELECTION),
        sweep_id=sweep_id,
        settings=question.model_dump(mode="json"),
        state=found.state,
        result=found.model_dump(mode="json"),
        created_at=now(),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def of_sweep(session: Session, sweep_id: str) -> list[SelectionRow]:
    """All of a sweep, the oldest first; raises NotFound where there is no such sweep."""
    sweeps.get(session, sweep_id)
    query = select(SelectionRow).where(SelectionRow.sweep_id == sweep_id)
    return list(session.scalars(query.order_by(SelectionRow.created_at, SelectionRow.id)))


def get(session: Session, sweep_id: str, selection_id: str) -> SelectionRow:
    """One of them; raises NotFound."""
    sweeps.get(session, sweep_id)
    row = session.get(SelectionRow, selection_id) if could_be_id(selection_id) else None
    if row is None or row.sweep_id != sweep_id:
        raise NotFound(f"sweep {sweep_id} has no selection {selection_id!r}", code="selection-not-found")
    return row


def remove(session: Session, sweep_id: str, selection_id: str) -> None:
    """Delete one; raises NotFound."""
    session.delete(get(session, sweep_id, selection_id))
    session.flush()
