"""Sessions of one project: they find nothing of another project, whatever is asked, and what they add is its own."""

from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from service.domain.tenant import Tenant
from service.store.tables import Owned

_TENANT = "tenant"


class ProjectSession(Session):
    """A session whose every query of owned rows, and every change of them, is of its project alone."""


def open_session(engine: Engine, tenant: Tenant | None) -> Session:
    """A session of the tenant; of everything where there is none, as for workers."""
    if tenant is None:
        return Session(engine, expire_on_commit=False)
    return ProjectSession(engine, expire_on_commit=False, info={_TENANT: tenant})


def tenant_of(session: Session) -> Tenant | None:
    """Whose session it is."""
    tenant = session.info.get(_TENANT)
    assert tenant is None or isinstance(tenant, Tenant)
    return tenant


def _only_its_own(state: ORMExecuteState) -> None:
    tenant = tenant_of(state.session)
    assert tenant is not None
    if state.is_column_load or state.is_relationship_load or state.is_insert:
        return
    project_id = tenant.project_id
    mine = with_loader_criteria(Owned, lambda owned: owned.project_id == project_id, include_aliases=True)
    state.statement = state.statement.options(mine)


def _owned_from_now_on(session: Session, _context: Any, _instances: Any) -> None:
    tenant = tenant_of(session)
    assert tenant is not None
    for row in session.new:
        if isinstance(row, Owned):
            row.project_id = tenant.project_id


event.listen(ProjectSession, "do_orm_execute", _only_its_own)
event.listen(ProjectSession, "before_flush", _owned_from_now_on)
