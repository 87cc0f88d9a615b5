"""Work units that were lost on the way: taken back from a dead worker, and hinted at again."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from service.domain.states import UnitState
from service.settings import LONGEST_LEASE_SECONDS
from service.store.clock import now
from service.store.tables import UnitRow


@dataclass(frozen=True)
class LostUnit:
    """A unit whose lease ran out: its worker is dead, or was stopped for too long."""

    unit_id: str
    subject_id: str
    sweep_id: str | None


def expired(session: Session) -> list[LostUnit]:
    """The units whose lease ran out."""
    query = select(UnitRow.id, UnitRow.subject_id, UnitRow.sweep_id).where(_is_expired())
    return [LostUnit(*row) for row in session.execute(query).tuples()]


def take_back(session: Session, unit_id: str, *, max_attempts: int) -> UnitState | None:
    """Queue an expired unit again, or end it as failed after its last attempt; None where its lease is alive again.

    Lock the unit's sweep first (as a worker does that finishes it), or the two wait for each other.
    The token grows, so that a worker that wakes up late is fenced even before the next claim.
    """
    unit = session.scalar(select(UnitRow).where(UnitRow.id == unit_id, _is_expired()).with_for_update())
    if unit is None:
        return None
    unit.token += 1
    unit.lease_expires_at = None
    unit.progress = 0.0
    if unit.attempts >= max_attempts:
        unit.state = UnitState.FAILED
        unit.error = f"its worker was lost {unit.attempts} times"
    else:
        unit.state = UnitState.QUEUED
        unit.owner = None
        unit.published_at = 0.0  # the next look of the reconciler publishes a hint
    session.flush()
    return UnitState(unit.state)


def _is_expired() -> ColumnElement[bool]:
    # one that ends too late was given before the clock was set back; a worker that lives renews it with each heartbeat
    over = UnitRow.lease_expires_at < now()
    too_late = UnitRow.lease_expires_at > now() + LONGEST_LEASE_SECONDS
    return (UnitRow.state == UnitState.LEASED) & (over | too_late)


def stale_hints(session: Session, *, older_than: float) -> list[tuple[str, str]]:
    """(unit id, queue) of queued units whose hint may be lost; they count as published now."""
    # one from the future was published before the clock was set back
    stale = (UnitRow.published_at < now() - older_than) | (UnitRow.published_at > now() + older_than)
    query = select(UnitRow).where(UnitRow.state == UnitState.QUEUED, stale)
    rows = list(session.scalars(query.with_for_update(skip_locked=True)))
    for row in rows:
        row.published_at = now()
    session.flush()
    return [(row.id, row.queue) for row in rows]
