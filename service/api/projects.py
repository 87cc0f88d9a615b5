"""Projects: made and listed by whoever keeps the installation."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from service.api.deps import Cursor, InInstallation, Limit
from service.api.problems import documented
from service.api.times import instant
from service.domain.tenant import Limits
from service.store import projects
from service.store.pages import read_page
from service.store.tables import ProjectRow

router = APIRouter(prefix="/v1/projects", tags=["administration"])

PROJECT_PATTERN = r"^[a-z0-9][a-z0-9-]*$"
ProjectId = Annotated[
    str,
    Field(
        max_length=63, pattern=PROJECT_PATTERN, description="Small letters, digits and hyphens.", examples=["team-a"]
    ),
]
Count = Annotated[int | None, Field(ge=0, le=2**31 - 1, description="None: as in the settings.")]


class ProjectRequest(BaseModel):
    """A project to be made."""

    model_config = ConfigDict(extra="forbid")

    id: ProjectId
    max_open_sweeps: Count = None
    max_queued_units: Count = None
    max_stored_bytes: Annotated[int | None, Field(ge=0, le=2**63 - 1, description="None: as in the settings.")] = None


class ProjectView(BaseModel):
    """A project with the limits in force."""

    id: str
    max_open_sweeps: int
    max_queued_units: int
    max_stored_bytes: int
    created_at: datetime

    @classmethod
    def of(cls, row: ProjectRow, general: Limits) -> "ProjectView":
        """The view of a stored row."""
        limits = projects.limits_of(row, general)
        return cls(
            id=row.id,
            max_open_sweeps=limits.open_sweeps,
            max_queued_units=limits.queued_units,
            max_stored_bytes=limits.stored_bytes,
            created_at=instant(row.created_at),
        )


class ProjectList(BaseModel):
    """One page of projects, newest first."""

    items: list[ProjectView]
    next_cursor: str | None


@router.post("", status_code=201, responses=documented(400, 409, 413))
def create_project(asked: ProjectRequest, services: InInstallation) -> ProjectView:
    """Make a project. Its keys see nothing of any other project, and no other key sees anything of it."""
    with services.database.write() as session:
        row = projects.create(session, ProjectRow(**asked.model_dump()))
        return ProjectView.of(row, services.settings.limits)


@router.get("")
def list_projects(services: InInstallation, limit: Limit = 50, cursor: Cursor = None) -> ProjectList:
    """The projects, newest first."""
    with services.database.read() as session:
        page = read_page(session, ProjectRow, limit=limit, cursor=cursor)
    items = [ProjectView.of(row, services.settings.limits) for row in page.items]
    return ProjectList(items=items, next_cursor=page.next_cursor)
