"""The audit log: what was asked to be changed, by which key, and how it ended. Rows are only ever added."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.store.clock import now
from service.store.identifiers import Prefix, new_id
from service.store.tables import AuditRow


@dataclass(frozen=True)
class Deed:
    """A request that could change something. ``key_id``: who; ``outcome``: the HTTP status of the answer."""

    key_id: str
    project_id: str
    action: str
    object: str
    outcome: int
    request_id: str


def add(session: Session, deed: Deed) -> None:
    """Write it down."""
    session.add(
        AuditRow(
            id=new_id(Prefix.AUDIT),
            key_id=deed.key_id,
            project_id=deed.project_id,
            action=deed.action,
            object=deed.object,
            outcome=deed.outcome,
            request_id=deed.request_id,
            created_at=now(),
        )
    )
    session.flush()
