"""Work units: queueing, leasing, fencing.

A worker claims a queued unit by a conditional UPDATE and gets a lease with a token. Every later write names the
token; it fails with LeaseLost once the reconciler has taken the unit back. So no unit is ever finished twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from service import tracing
from service.domain.errors import LeaseLost
from service.domain.scheduling import Priority
from service.domain.states import UnitKind, UnitState
from service.store.clock import now
from service.store.identifiers import Prefix, new_id
from service.store.tables import DEFAULT_PROJECT, SweepRow, UnitRow
from service.store.turns import any_queued, next_in_turn

OPEN_STATES = (UnitState.WAITING, UnitState.QUEUED, UnitState.LEASED)


@dataclass(frozen=True)
class Lease:
    """The right to work on a unit until ``token`` is outdated. ``trace``: the traceparent of what queued it."""

    unit_id: str
    token: int
    kind: UnitKind
    subject_id: str
    sweep_id: str | None
    round: int
    ordinal: int
    payload: dict[str, Any]
    trace: str | None = None

    @property
    def selection_id(self) -> str | None:
        """The selection that the unit works for; None where it is the sweep itself, or there is none."""
        return None if self.sweep_id in (None, self.subject_id) else self.subject_id


@dataclass(frozen=True)
class NewUnit:
    """A unit to be queued. ``project_id``: of what is no sweep's; a sweep's units have its project and its priority."""

    kind: UnitKind
    subject_id: str
    queue: str
    sweep_id: str | None = None
    round: int = 0
    ordinal: int = 0
    payload: dict[str, Any] | None = None
    cost: float = 0.0
    waiting: bool = False
    project_id: str = DEFAULT_PROJECT


def add_units(session: Session, units: Sequence[NewUnit]) -> list[str]:
    """Store units as queued (or waiting); their ids. Publish a hint for each after the commit."""
    trace = tracing.current()
    shares = _shares(session, {unit.sweep_id for unit in units if unit.sweep_id is not None})
    rows = [
        UnitRow(
            id=new_id(Prefix.UNIT),
            kind=unit.kind,
            subject_id=unit.subject_id,
            sweep_id=unit.sweep_id,
            round=unit.round,
            ordinal=unit.ordinal,
            queue=unit.queue,
            project_id=shares[unit.sweep_id].project_id if unit.sweep_id is not None else unit.project_id,
            weight=shares[unit.sweep_id].weight if unit.sweep_id is not None else Priority.NORMAL.weight,
            payload=unit.payload or {},
            cost=unit.cost,
            progress=0.0,
            state=UnitState.WAITING if unit.waiting else UnitState.QUEUED,
            attempts=0,
            token=0,
            published_at=now(),
            result={},
            trace=trace,
            created_at=now(),
        )
        for unit in units
    ]
    session.add_all(rows)
    session.flush()
    return [row.id for row in rows]


@dataclass(frozen=True)
class _Share:
    project_id: str
    weight: int


def _shares(session: Session, sweep_ids: set[str]) -> dict[str, _Share]:
    """What each sweep gives its units."""
    query = select(SweepRow.id, SweepRow.project_id, SweepRow.settings).where(SweepRow.id.in_(sweep_ids))
    return {
        row.id: _Share(row.project_id, Priority(row.settings.get("priority", Priority.NORMAL)).weight)
        for row in session.execute(query)
    }


def claim(session: Session, queue: str, *, owner: str, lease_seconds: float) -> Lease | None:
    """Lease the unit of a queue whose turn it is (service/store/turns.py), or None."""
    unit_id = session.scalar(next_in_turn(queue))
    if unit_id is None:  # another claim holds the last unit of whose turn it is: any other is better than none
        unit_id = session.scalar(any_queued(queue))
    if unit_id is None:
        return None
    changed = session.execute(
        update(UnitRow)
        .where(UnitRow.id == unit_id, UnitRow.state == UnitState.QUEUED)
        .values(
            state=UnitState.LEASED,
            owner=owner,
            token=UnitRow.token + 1,
            attempts=UnitRow.attempts + 1,
            progress=0.0,
            lease_expires_at=now() + lease_seconds,
            started_at=now(),
            error=None,
        )
    )
    if not _one(changed):
        return None
    row = session.get_one(UnitRow, unit_id, populate_existing=True)
    return Lease(
        row.id,
        row.token,
        UnitKind(row.kind),
        row.subject_id,
        row.sweep_id,
        row.round,
        row.ordinal,
        dict(row.payload),
        row.trace,
    )


def expected_next(session: Session, lease: Lease) -> dict[str, Any] | None:
    """The payload of the unit that the holder of this lease will probably claim next, of the same sweep and kind.

    Units go out in order, and the others that work on this sweep will each have claimed one before.
    """
    mine = (UnitRow.sweep_id == lease.sweep_id, UnitRow.kind == lease.kind)
    others = select(func.count()).where(*mine, UnitRow.state == UnitState.LEASED, UnitRow.id != lease.unit_id)
    queued = select(UnitRow).where(*mine, UnitRow.state == UnitState.QUEUED).order_by(UnitRow.ordinal)
    row = session.scalar(queued.offset(session.scalar(others) or 0).limit(1))
    return None if row is None else dict(row.payload)


def heartbeat(session: Session, lease: Lease, *, lease_seconds: float, progress: float) -> None:
    """Extend the lease and record progress (0 to 1); raises LeaseLost."""
    _fenced(session, lease, {"lease_expires_at": now() + lease_seconds, "progress": progress})


def finish(
    session: Session,
    lease: Lease,
    *,
    result: dict[str, Any],
    result_sha256: str | None = None,
    content_key: str | None = None,
) -> None:
    """Record the unit's result; raises LeaseLost, and then nothing was written.

    ``content_key``: what ``results_by_content`` finds the file ``result_sha256`` by.
    """
    _fenced(
        session,
        lease,
        {
            "state": UnitState.DONE,
            "result": result,
            "result_sha256": result_sha256,
            "content_key": content_key,
            "progress": 1.0,
            "lease_expires_at": None,
            "finished_at": now(),
        },
    )


def results_by_content(session: Session, content_key: str) -> list[str]:
    """The files (SHA-256) of finished units with this key, of any sweep: the key names the project; newest first."""
    query = (
        select(UnitRow.result_sha256)
        .where(UnitRow.content_key == content_key, UnitRow.state == UnitState.DONE, UnitRow.result_sha256.is_not(None))
        .order_by(UnitRow.finished_at.desc(), UnitRow.id)
    )
    return list(dict.fromkeys(each for each in session.scalars(query) if each is not None))


def fail(session: Session, lease: Lease, *, error: str) -> None:
    """End the unit as failed; raises LeaseLost."""
    _fenced(session, lease, {"state": UnitState.FAILED, "error": error, "lease_expires_at": None, "finished_at": now()})


def cancel(session: Session, lease: Lease) -> None:
    """End the unit as cancelled; raises LeaseLost."""
    _fenced(session, lease, {"state": UnitState.CANCELLED, "lease_expires_at": None, "finished_at": now()})


def give_back(session: Session, lease: Lease, *, error: str | None, count_attempt: bool) -> None:
    """Queue the unit again, by this worker's own will; raises LeaseLost."""
    values: dict[str, Any] = {"state": UnitState.QUEUED, "owner": None, "lease_expires_at": None, "error": error}
    values |= {"published_at": now(), "progress": 0.0}
    if not count_attempt:
        values["attempts"] = UnitRow.attempts - 1
    _fenced(session, lease, values)


def give_back_all(session: Session, owner: str) -> list[str]:
    """Queue again all that a worker holds, without counting the attempts; the queue of each unit, to be hinted at.

    The tokens grow: what is left of the worker is fenced from here on.
    """
    mine = select(UnitRow).where(UnitRow.owner == owner, UnitRow.state == UnitState.LEASED).with_for_update()
    rows = list(session.scalars(mine))
    for row in rows:
        row.state, row.owner, row.lease_expires_at = UnitState.QUEUED, None, None
        row.token += 1
        row.attempts -= 1
        row.progress = 0.0
        row.published_at = now()
    session.flush()
    return [row.queue for row in rows]


def _fenced(session: Session, lease: Lease, values: dict[str, Any]) -> None:
    changed = session.execute(
        update(UnitRow)
        .where(UnitRow.id == lease.unit_id, UnitRow.token == lease.token, UnitRow.state == UnitState.LEASED)
        .values(**values)
    )
    if not _one(changed):
        raise LeaseLost(f"the lease on work unit {lease.unit_id} is gone")


def _one(changed: Any) -> bool:
    assert isinstance(changed, CursorResult)
    return changed.rowcount == 1


def units_of(session: Session, subject_id: str, kind: UnitKind, *, round_: int | None = None) -> list[UnitRow]:
    """The units of one kind of a sweep or a selection, in order."""
    query = select(UnitRow).where(UnitRow.subject_id == subject_id, UnitRow.kind == kind)
    if round_ is not None:
        query = query.where(UnitRow.round == round_)
    return list(session.scalars(query.order_by(UnitRow.round, UnitRow.ordinal)))


def count_done(session: Session, subject_id: str, kind: UnitKind) -> int:
    """How many units of one kind of a sweep or a selection are done."""
    mine = (UnitRow.subject_id == subject_id, UnitRow.kind == kind, UnitRow.state == UnitState.DONE)
    return session.scalar(select(func.count()).where(*mine)) or 0


def is_held(session: Session, subject_id: str) -> bool:
    """Whether a worker holds a unit of this sweep or selection."""
    query = select(UnitRow.id).where(UnitRow.subject_id == subject_id, UnitRow.state == UnitState.LEASED)
    return session.scalar(query.limit(1)) is not None


def end_units(session: Session, subject_id: str, state: UnitState) -> None:
    """End all units of a sweep or a selection that are still open; a worker that holds one is fenced."""
    session.execute(
        update(UnitRow)
        .where(UnitRow.subject_id == subject_id, UnitRow.state.in_(OPEN_STATES))
        .values(state=state, lease_expires_at=None, token=UnitRow.token + 1, finished_at=now())
    )


def lock_sweep(session: Session, sweep_id: str) -> SweepRow | None:
    """The sweep's row, locked until the transaction ends (SQLite: the whole database is)."""
    return session.get(SweepRow, sweep_id, with_for_update=True, populate_existing=True)
