"""From the Authorization header to the caller."""

import hmac

from service.api.access import Access, Caller, access_of
from service.api.problems import Unauthorized
from service.domain.api_keys import ApiKey, KeyScope
from service.settings import Settings
from service.store import keys
from service.store.database import Database
from service.store.keys import KnownKey, Pepper
from service.store.private_file import private_text
from service.store.tables import DEFAULT_PROJECT

EVERYTHING = frozenset(KeyScope)
LOCAL = Caller("local", DEFAULT_PROJECT, EVERYTHING, limited=False)
ANYBODY = Caller("anybody", DEFAULT_PROJECT, EVERYTHING, limited=False)
HOW = "send the header `Authorization: Bearer <key>`"


class Authenticator:
    """Knows callers by their keys. Made at the start: the local key and the pepper lie in files after that."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._access = access_of(settings)
        self._pepper = Pepper.of(settings) if self._access is not Access.OPEN else None
        self._local = None
        if self._access is Access.LOCAL:
            self._local = private_text(settings.key_file, lambda: ApiKey.generate().text)
            self._how = f"{HOW}; that of this machine lies in {settings.key_file}"
        else:
            self._how = HOW

    def caller(self, authorization: str | None) -> Caller:
        """Who asks; raises Unauthorized. The database is asked only where a well-formed key is not the local one."""
        if self._pepper is None:
            return ANYBODY
        if authorization is None:
            raise Unauthorized(f"a key is needed: {self._how}", code="key-missing")
        kind, _, text = authorization.partition(" ")
        text = text.strip()
        if kind.lower() != "bearer":
            raise Unauthorized(f"the Authorization header holds no key: {self._how}", code="key-missing")
        if self._local is not None and hmac.compare_digest(text.encode(), self._local.encode()):
            return LOCAL
        key = ApiKey.parse(text)
        if key is None:
            message = "the key is not one of this service: its checksum or its form is wrong, as after a typing error"
            raise Unauthorized(message, code="key-malformed")
        return self._known(key, self._pepper)

    def _known(self, key: ApiKey, pepper: Pepper) -> Caller:
        with self._database.read() as session:
            found = keys.find(session, key, pepper)
        if found is None:
            raise Unauthorized("nobody has this key here", code="key-unknown")
        if found.revoked:
            raise Unauthorized(f"{found.id} was revoked", code="key-revoked")
        if found.expired:
            raise Unauthorized(f"{found.id} has expired", code="key-expired")
        self._note_use(found)
        return Caller(found.id, found.project_id, found.scopes)

    def _note_use(self, found: KnownKey) -> None:
        if found.use_is_due:
            with self._database.write() as session:
                keys.note_use(session, found.id)
