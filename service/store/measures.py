"""What the rows say of an installation at this moment, in numbers for those who watch it."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.domain.states import UnitState
from service.store import workers
from service.store.clock import now, spent
from service.store.quotas import every_file
from service.store.tables import (
    SweepRow,
    UnitRow,
)

RECENT_SECONDS = 3600.0
MOST_PROJECTS = 100
OTHERS = "(others)"
"""Not a name that a project can have."""


@dataclass(frozen=True)
class UnitGroup:
    """Units of one queue, kind and state; ``attempts``: how often they were leased, all together."""

    queue: str
    kind: str
    state: str
    count: int
    attempts: int


@dataclass(frozen=True)
class Duration:
    """Units of one kind and backend that were done within the last hour; ``backend``: "" where no sweep chose one."""

    kind: str
    backend: str
    count: int
    seconds: float


@dataclass(frozen=True)
class Measures:
    """One look at everything.

    ``oldest_queued``: queue → seconds; ``workers``: backend → live workers that offer it and take work;
    ``stored_bytes``: project → bytes, of the largest 100 projects, and of all others together.
    """

    units: tuple[UnitGroup, ...]
    oldest_queued: Mapping[str, float]
    durations: tuple[Duration, ...]
    sweeps: Mapping[str, int]
    workers: Mapping[str, int]
    live_workers: int
    refused_workers: int
    stored_bytes: Mapping[str, int]


def measure(session: Session) -> Measures:
    """Read it all, by a handful of statements over whole tables."""
    live = workers.judged(session)
    able = [row for row, refused in live if refused is None]
    offers = [name for row in able for name, offer in row.capabilities.items() if offer.get("available")]
    return Measures(
        units=_units(session),
        oldest_queued=_oldest_queued(session),
        durations=_durations(session),
        sweeps=_sweeps(session),
        workers={name: offers.count(name) for name in sorted(set(offers))},
        live_workers=len(live),
        refused_workers=len(live) - len(able),
        stored_bytes=_stored_bytes(session),
    )


def _sweeps(session: Session) -> dict[str, int]:
    rows = session.execute(select(SweepRow.state, func.count()).group_by(SweepRow.state))
    return {state: count for state, count in rows.tuples()}  # noqa: C416  (dict() takes the result for a mapping)


def _units(session: Session) -> tuple[UnitGroup, ...]:
    by = (UnitRow.queue, UnitRow.kind, UnitRow.state)
    rows = session.execute(select(*by, func.count(), func.sum(UnitRow.attempts)).group_by(*by).order_by(*by))
    return tuple(UnitGroup(*row) for row in rows.tuples())


def _oldest_queued(session: Session) -> dict[str, float]:
    age = now() - func.min(UnitRow.created_at)
    rows = select(UnitRow.queue, age).where(UnitRow.state == UnitState.QUEUED).group_by(UnitRow.queue)
    return {queue: max(0.0, float(seconds)) for queue, seconds in session.execute(rows).tuples()}


def _durations(session: Session) -> tuple[Duration, ...]:
    by = (UnitRow.kind, func.coalesce(SweepRow.backend, ""))
    rows = (
        select(*by, func.count(), func.sum(spent(UnitRow.started_at, UnitRow.finished_at)))
        .join(SweepRow, SweepRow.id == UnitRow.sweep_id, isouter=True)
        .where(UnitRow.state == UnitState.DONE, UnitRow.started_at.is_not(None))
        .where(UnitRow.finished_at > now() - RECENT_SECONDS)
        .group_by(*by)
        .order_by(*by)
    )
    found = session.execute(rows).tuples()
    return tuple(Duration(kind, backend, count, seconds or 0.0) for kind, backend, count, seconds in found)


def _stored_bytes(session: Session) -> dict[str, int]:
    every = every_file()
    total = func.sum(every.c.size)
    rows = select(every.c.project_id, total).group_by(every.c.project_id).order_by(total.desc(), every.c.project_id)
    found = [(project, int(size)) for project, size in session.execute(rows).tuples()]
    largest, others = found[:MOST_PROJECTS], found[MOST_PROJECTS:]
    return dict(largest) | ({OTHERS: sum(size for _, size in others)} if others else {})
