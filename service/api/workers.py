"""The workers that live, and what each can run."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from service import __version__
from service.api.deps import InInstallation
from service.api.times import instant
from service.domain.protocol import PROTOCOL
from service.store import workers
from service.store.installation import code_speaks, installed

router = APIRouter(prefix="/v1/workers", tags=["workers"])


class WorkerView(BaseModel):
    """A worker by its last heartbeat. ``capabilities``: backend → available, devices, versions, reason, libraries.

    ``refused``: why it takes no work, where its release does not fit the database's schema or the API.
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
    refused: str | None


class ApiVersion(BaseModel):
    """A release: ``schema_revision`` is the database's, ``code_revision`` the one that the API is made for."""

    version: str
    protocol: int
    schema_revision: str
    code_revision: str


class WorkerList(BaseModel):
    """The workers that were seen within the last 30 seconds, and what the API that answers is."""

    api: ApiVersion
    items: list[WorkerView]


@router.get("")
def list_workers(services: InInstallation) -> WorkerList:
    """The workers that live."""
    with services.database.read() as session:
        rows = workers.judged(session)
        spoken = installed(session)
    return WorkerList(
        api=ApiVersion(
            version=__version__,
            protocol=PROTOCOL,
            schema_revision=spoken.schema or "",
            code_revision=code_speaks().schema or "",
        ),
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
                refused=refused,
            )
            for row, refused in rows
        ],
    )
