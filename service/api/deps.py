"""What endpoints ask for, as annotated types."""

from dataclasses import dataclass, field
from typing import Annotated, Protocol

from anyio import CapacityLimiter
from fastapi import Depends, Header, Query, Request

from service.api.access import Caller
from service.domain.tenant import Tenant
from service.settings import Settings
from service.store.blobs import BlobStore
from service.store.database import Database, ProjectDatabase

SEARCHES = 2
"""At once: each is bounded by its nodes, but may keep a processor busy for seconds."""


class Publisher(Protocol):
    """Says that a queue has work; False where the broker did not take it."""

    def publish(self, queue: str, count: int = 1) -> bool:
        """Say ``count`` times that a queue has work."""

    def answers(self) -> bool:
        """Whether the broker is there now."""


@dataclass(frozen=True)
class Services:
    """What the API works with: the whole installation.

    ``searches``: the threads that may search for lists, apart from all other requests'.
    """

    settings: Settings
    database: Database
    blobs: BlobStore
    hints: Publisher
    searches: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(SEARCHES))


@dataclass(frozen=True)
class ProjectServices:
    """What a request works with that belongs to a project: of the database it sees that project alone.

    ``whole``: the installation, for what is nobody's, such as files that nothing names any more.
    """

    settings: Settings
    database: ProjectDatabase
    blobs: BlobStore
    hints: Publisher
    whole: Services


def installation_of(request: Request) -> Services:
    """The services of the application that this request came to."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


def caller_of(request: Request) -> Caller:
    """Who asks."""
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


def services_of(request: Request) -> ProjectServices:
    """The services as the caller's project sees them."""
    whole, caller = installation_of(request), caller_of(request)
    database = whole.database.of(Tenant(caller.project_id, whole.settings.limits))
    return ProjectServices(whole.settings, database, whole.blobs, whole.hints, whole)


InInstallation = Annotated[Services, Depends(installation_of)]
InServices = Annotated[ProjectServices, Depends(services_of)]

NAME_PATTERN = r"^[^\x00-\x1f\x7f]+$"
Name = Annotated[
    str,
    Query(min_length=1, max_length=200, pattern=NAME_PATTERN, description="What people call it; any printable text."),
]
Limit = Annotated[int, Query(ge=1, le=200, description="At most so many items.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Sending the same request again with the same key returns the sweep that the first one made.",
    ),
]
