"""Workers, as their heartbeats show them."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.domain.protocol import Spoken, skew
from service.store.clock import now
from service.store.installation import installed
from service.store.tables import WorkerRow

LIVE_SECONDS = 30.0
# the row of a worker that died without leaving is of no use to anybody after a day
FORGOTTEN_SECONDS = 86_400.0


@dataclass(frozen=True)
class Heartbeat:
    """What a worker says of itself; ``capabilities``: backend → available, devices, versions, reason, libraries.

    ``sandbox`` in it → the measures that confine what opens files.
    """

    worker_id: str
    host: str
    pid: int
    queues: list[str]
    capabilities: dict[str, Any]
    versions: dict[str, str]


def beat(session: Session, heartbeat: Heartbeat) -> None:
    """Note that a worker lives now, and what it can run."""
    row = session.get(WorkerRow, heartbeat.worker_id)
    if row is None:
        session.execute(delete(WorkerRow).where(WorkerRow.seen_at < now() - FORGOTTEN_SECONDS))
        row = WorkerRow(id=heartbeat.worker_id, started_at=now())
        session.add(row)
    row.host, row.pid, row.queues = heartbeat.host, heartbeat.pid, list(heartbeat.queues)
    row.capabilities, row.versions = dict(heartbeat.capabilities), dict(heartbeat.versions)
    row.seen_at = now()
    session.flush()


def able(session: Session) -> list[WorkerRow]:
    """The live workers that take work: their release fits the database and the API."""
    return [row for row, refused in judged(session) if refused is None]


def judged(session: Session) -> list[tuple[WorkerRow, str | None]]:
    """The live workers, each with the reason why it takes no work; None where it does."""
    spoken = installed(session)
    return [(row, skew(Spoken.of_versions(row.versions), spoken)) for row in live(session)]


def leave(session: Session, worker_id: str) -> None:
    """Note that a worker has ended."""
    session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


def live(session: Session) -> list[WorkerRow]:
    """The workers seen within the last 30 seconds, by host and process."""
    query = select(WorkerRow).where(WorkerRow.seen_at > now() - LIVE_SECONDS)
    return list(session.scalars(query.order_by(WorkerRow.host, WorkerRow.pid, WorkerRow.id)))
