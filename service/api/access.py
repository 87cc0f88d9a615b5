"""Who may do what: how callers are known, and the scope that a request needs."""

from dataclasses import dataclass
from enum import StrEnum

from service.domain.api_keys import KeyScope
from service.domain.errors import InvalidInput
from service.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""What tells nothing of anybody."""
ADMIN = ("/v1/keys", "/v1/projects", "/v1/workers", "/v1/audit", "/metrics")
"""What is about the installation as a whole."""


class Access(StrEnum):
    """How callers are known."""

    KEYS = "keys"  # by API keys alone
    LOCAL = "local"  # by API keys, or by the key in the data folder: a loopback address
    OPEN = "open"  # not at all


@dataclass(frozen=True)
class Caller:
    """Who asks, for which project, and what they may do. ``limited``: whether their requests are counted."""

    key_id: str
    project_id: str
    scopes: frozenset[KeyScope]
    limited: bool = True


def access_of(settings: Settings) -> Access:
    """How callers are known; raises InvalidInput where strangers could reach the API and nothing was decided."""
    if settings.require_keys is not None:
        return Access.KEYS if settings.require_keys else Access.OPEN
    if settings.on_loopback:
        return Access.LOCAL
    raise InvalidInput(
        f"host: {settings.host} can be reached from other machines; set QUANTSIEVE_REQUIRE_KEYS=true (keys are made "
        "with `quantsieve keys create`), or =false to let everybody who reaches it do everything",
        field="host",
    )


def public_paths(settings: Settings) -> frozenset[str]:
    """What is read without a key."""
    return PUBLIC | {"/metrics"} if settings.public_metrics else PUBLIC


def needed_scope(method: str, path: str, *, public: frozenset[str] = PUBLIC) -> KeyScope | None:
    """The scope that a request needs, whatever stands at the path; None: it needs no key."""
    if path in public and method in SAFE_METHODS:
        return None
    if any(path == each or path.startswith(f"{each}/") for each in ADMIN):
        return KeyScope.ADMIN
    return KeyScope.READ if method in SAFE_METHODS else KeyScope.SUBMIT


def may_send_pt2(settings: Settings, caller: Caller) -> bool:
    """Whether they may send torch.export archives, which can run code."""
    if settings.allow_pt2 is not None:
        return settings.allow_pt2
    if access_of(settings) is Access.KEYS:
        return KeyScope.ADMIN in caller.scopes
    return settings.on_loopback
