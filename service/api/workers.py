"""The workers that live, and what each can run."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from service.api.deps import InInstallation
from service.api.times import instant
from service.store import workers

router = APIRouter(prefix="/v1/workers", tags=["workers"])


class WorkerView(BaseModel):
    """A worker by its last heartbeat. ``capabilities``: backend → available, devices, versions, reason, libraries.

    Under ``sandbox`` are the measures that confine what opens files there: name, holds, found.
    """

    id: str
    host: str
    pid: int
    queues: list[str]
    capabilities: dict[str, Any]
    versions: dict[str, Any]
    started_at: datetime
    seen_at: datetime


class WorkerList(BaseModel):
    """The workers that were seen within the last 30 seconds."""

    items: list[WorkerView]


@router.get("")
def list_workers(services: InInstallation) -> WorkerList:
    """The workers that live."""
    with services.database.read() as session:
        rows = workers.live(session)
    return WorkerList(
        items=[
            WorkerView(
                id=row.id,
                host=row.host,
                pid=row.pid,
                queues=row.queues,
                capabilities=row.capabilities,
                versions=row.versions,
                started_at=instant(row.started_at),
                seen_at=instant(row.seen_at),
            )
            for row in rows
        ]
    )
