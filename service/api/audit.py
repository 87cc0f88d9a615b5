"""The audit log, for reading."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel

from service.api.deps import Cursor, InInstallation, Limit
from service.api.times import instant
from service.store.pages import read_page
from service.store.tables import AuditRow

router = APIRouter(prefix="/v1/audit", tags=["administration"])


class AuditView(BaseModel):
    """A request that could change something. ``outcome``: the HTTP status of its answer.

    ``key``: who asked; ``local`` for the key in the data folder, ``command-line`` for `quantsieve keys`, ``anybody``
    where no keys are required. ``action``: the operation; ``object``: what was made, else the path that was asked for.
    """

    id: str
    at: datetime
    key: str
    project: str
    action: str
    object: str
    outcome: int
    request_id: str

    @classmethod
    def of(cls, row: AuditRow) -> "AuditView":
        """The view of a stored row."""
        return cls(
            id=row.id,
            at=instant(row.created_at),
            key=row.key_id,
            project=row.project_id,
            action=row.action,
            object=row.object,
            outcome=row.outcome,
            request_id=row.request_id,
        )


class AuditList(BaseModel):
    """One page of the audit log, newest first."""

    items: list[AuditView]
    next_cursor: str | None


@router.get("")
def list_audit(services: InInstallation, limit: Limit = 50, cursor: Cursor = None) -> AuditList:
    """What was asked to be changed, newest first, in all projects."""
    with services.database.read() as session:
        page = read_page(session, AuditRow, limit=limit, cursor=cursor)
    return AuditList(items=[AuditView.of(row) for row in page.items], next_cursor=page.next_cursor)
