"""API keys: made, listed and revoked. A key's text is in one answer, the one that makes it."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.deps import NAME_PATTERN, Cursor, InInstallation, Limit
from service.api.problems import documented
from service.api.projects import ProjectId
from service.api.times import instant, instant_or_none
from service.domain.api_keys import KeyScope
from service.domain.errors import InvalidInput, NotFound
from service.store import keys
from service.store.keys import NewKey, Pepper
from service.store.pages import read_page
from service.store.retention import DAY_SECONDS
from service.store.tables import DEFAULT_PROJECT, KeyRow

router = APIRouter(prefix="/v1/keys", tags=["administration"])

KeyId = Annotated[str, Path(max_length=64, description="A key's id, such as `key_4q8c1z0rk2vx`.")]


class KeyRequest(BaseModel):
    """A key to be made. No scope includes another; ``expires_in_days`` None: it does not expire."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=NAME_PATTERN, examples=["nightly builds"])]
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=len(KeyScope))]
    project: ProjectId = DEFAULT_PROJECT
    expires_in_days: Annotated[float | None, Field(gt=0, le=36_500)] = None


class KeyView(BaseModel):
    """A key, without its text. ``last_used_at`` is true to a minute."""

    id: str
    name: str
    project: str
    scopes: list[KeyScope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: KeyRow) -> "KeyView":
        """The view of a stored row."""
        return cls(
            id=row.id,
            name=row.name,
            project=row.project_id,
            scopes=[KeyScope(each) for each in row.scopes],
            created_at=instant(row.created_at),
            expires_at=instant_or_none(row.expires_at),
            last_used_at=instant_or_none(row.last_used_at),
            revoked_at=instant_or_none(row.revoked_at),
        )


class CreatedKey(KeyView):
    """A key with its text, ``key``, which is shown this once: only an HMAC of it is stored."""

    key: str


class KeyList(BaseModel):
    """One page of keys, newest first."""

    items: list[KeyView]
    next_cursor: str | None


@router.post("", status_code=201, responses=documented(400, 413))
def create_key(asked: KeyRequest, response: Response, services: InInstallation) -> CreatedKey:
    """Make a key."""
    lives = None if asked.expires_in_days is None else asked.expires_in_days * DAY_SECONDS
    new = NewKey(asked.name, asked.scopes, asked.project, lives)
    try:
        with services.database.write() as session:
            row, key = keys.create(session, new, Pepper.of(services.settings))
    except NotFound as error:
        raise InvalidInput(f"project: {error.message}; make it first", field="project", code=error.code) from None
    response.headers.update({"Location": f"/v1/keys/{row.id}", "Cache-Control": "no-store"})
    return CreatedKey(**KeyView.of(row).model_dump(), key=key.text)


@router.get("")
def list_keys(services: InInstallation, limit: Limit = 50, cursor: Cursor = None) -> KeyList:
    """The keys of all projects, newest first, those that are revoked or have expired among them."""
    with services.database.read() as session:
        page = read_page(session, KeyRow, limit=limit, cursor=cursor)
    return KeyList(items=[KeyView.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.get("/{key_id}", responses=documented(404))
def get_key(services: InInstallation, key_id: KeyId) -> KeyView:
    """One key."""
    with services.database.read() as session:
        return KeyView.of(keys.get(session, key_id))


@router.delete("/{key_id}", responses=documented(404))
def revoke_key(services: InInstallation, key_id: KeyId) -> KeyView:
    """Revoke a key, at once and for good. It stays in the list, for the audit log to name."""
    with services.database.write() as session:
        return KeyView.of(keys.revoke(session, key_id))
