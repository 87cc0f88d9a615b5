"""API keys: made, found by their text, revoked. Only an HMAC of the text is stored."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from service.domain.api_keys import ApiKey, KeyScope
from service.domain.errors import NotFound
from service.settings import Settings
from service.store.clock import now
from service.store.identifiers import could_be_id
from service.store.private_file import private_text
from service.store.projects import get as get_project
from service.store.tables import DEFAULT_PROJECT, KeyRow

USE_SECONDS = 60.0
"""How often the time of a key's last use is written, at most."""


@dataclass(frozen=True)
class NewKey:
    """A key to be made. ``lives_seconds`` None: it does not expire."""

    name: str
    scopes: Sequence[KeyScope]
    project_id: str = DEFAULT_PROJECT
    lives_seconds: float | None = None


@dataclass(frozen=True)
class KnownKey:
    """A stored key that a text was found to be."""

    id: str
    project_id: str
    scopes: frozenset[KeyScope]
    expired: bool
    revoked: bool
    use_is_due: bool


class Pepper:
    """Makes the HMACs. Without the pepper, whoever reads the database cannot even check a guess."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    @classmethod
    def of(cls, settings: Settings) -> "Pepper":
        """The installation's; made and kept in data_dir/pepper where no setting has one. Raises InvalidInput."""
        if settings.key_pepper is not None:
            return cls(settings.key_pepper.get_secret_value())
        return cls(private_text(settings.data_dir / "pepper", lambda: secrets.token_hex(32)))

    def digest(self, text: str) -> str:
        """The HMAC-SHA256 of a key's text, in hexadecimal."""
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def create(session: Session, new: NewKey, pepper: Pepper) -> tuple[KeyRow, ApiKey]:
    """The row, and the key in the clear, which nobody can show again. Raises NotFound for an unknown project."""
    get_project(session, new.project_id)
    key = ApiKey.generate()
    row = KeyRow(
        id=key.id,
        project_id=new.project_id,
        name=new.name,
        digest=pepper.digest(key.text),
        scopes=sorted(set(new.scopes)),
        created_at=now(),
        expires_at=None if new.lives_seconds is None else now() + new.lives_seconds,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row, key


def find(session: Session, key: ApiKey, pepper: Pepper) -> KnownKey | None:
    """The key of this text; None where there is none."""
    found = session.execute(select(KeyRow, now()).where(KeyRow.id == key.id)).tuples().one_or_none()
    if found is None:
        return None
    row, clock = found
    if not hmac.compare_digest(row.digest, pepper.digest(key.text)):
        return None
    return KnownKey(
        id=row.id,
        project_id=row.project_id,
        scopes=frozenset(KeyScope(each) for each in row.scopes),
        expired=row.expires_at is not None and row.expires_at <= clock,
        revoked=row.revoked_at is not None,
        use_is_due=row.last_used_at is None or row.last_used_at < clock - USE_SECONDS,
    )


def note_use(session: Session, key_id: str) -> None:
    """Note that a key is used now, unless another request did so within the minute."""
    long_ago = or_(KeyRow.last_used_at.is_(None), KeyRow.last_used_at < now() - USE_SECONDS)
    session.execute(update(KeyRow).where(KeyRow.id == key_id, long_ago).values(last_used_at=now()))


def get(session: Session, key_id: str) -> KeyRow:
    """The key; raises NotFound."""
    row = session.get(KeyRow, key_id) if could_be_id(key_id) else None
    if row is None:
        raise NotFound(f"there is no key {key_id!r}", code="key-not-found")
    return row


def revoke(session: Session, key_id: str) -> KeyRow:
    """End a key for good; one that is revoked stays as it is. Its row stays too, for the audit log."""
    row = get(session, key_id)
    revoked = update(KeyRow).where(KeyRow.id == row.id, KeyRow.revoked_at.is_(None)).values(revoked_at=now())
    session.execute(revoked)
    session.refresh(row)
    return row
