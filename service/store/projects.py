"""Projects: the tenants of an installation."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.domain.errors import Conflict, NotFound
from service.domain.tenant import Limits
from service.store.clock import now
from service.store.tables import ProjectRow


def create(session: Session, row: ProjectRow) -> ProjectRow:
    """The row, stored; raises Conflict where the project exists."""
    row.created_at = now()
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        raise Conflict(f"there is a project {row.id!r} already", code="project-exists") from None
    session.refresh(row)
    return row


def get(session: Session, project_id: str) -> ProjectRow:
    """The project; raises NotFound."""
    row = session.get(ProjectRow, project_id)
    if row is None:
        raise NotFound(f"there is no project {project_id!r}", code="project-not-found")
    return row


def limits_of(row: ProjectRow, general: Limits) -> Limits:
    """The limits in force: its own, else the installation's."""
    return Limits(
        general.open_sweeps if row.max_open_sweeps is None else row.max_open_sweeps,
        general.queued_units if row.max_queued_units is None else row.max_queued_units,
        general.stored_bytes if row.max_stored_bytes is None else row.max_stored_bytes,
    )
