"""Errors that come out of a sandbox: by code and message, never as objects."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from service.domain.errors import InvalidInput, QuantsieveError, RejectedFile, SweepFailure, Unavailable
from service.domain.no_space import FULL, NoSpace
from workers.backends.protocol import OutOfMemory

LONGEST = 2000
NO_ROOM = "there is no space left for temporary files"
ROOM = 4 * 2**30
"""Bytes. Where more is free, a sandbox that finds no room has met its own limit, and waiting would not help it."""
NO_CODE = re.compile(r"[^a-z0-9-]")
NO_NAME = re.compile(r"[^A-Za-z0-9_.]")
KNOWN: Mapping[str, type[QuantsieveError]] = {
    each.__name__: each for each in (RejectedFile, InvalidInput, SweepFailure, Unavailable)
}


class SandboxDied(Exception):
    """The process that had a stranger's file open has ended, or was ended: what it did last has no result."""


class FailedInside(Exception):
    """Something went wrong in a sandbox that nobody foresaw; the message begins with the error's own type."""

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(f"{type_name}: {message}")


def to_document(error: BaseException) -> dict[str, Any]:
    """What is sent of an error."""
    if isinstance(error, MemoryError):
        error = OutOfMemory("it needs more memory than a sandbox may take")
    if isinstance(error, OSError) and error.errno in FULL:
        error = NoSpace(NO_ROOM)
    known = next((name for name, each in KNOWN.items() if type(error) is each), None)
    if known is None and isinstance(error, InvalidInput):
        known = RejectedFile.__name__ if isinstance(error, RejectedFile) else InvalidInput.__name__
    return {
        "type": known or type(error).__name__,
        "message": str(error)[:LONGEST],
        "code": getattr(error, "code", None),
        "field": getattr(error, "field", None),
    }


def from_document(document: Any) -> Exception:
    """The error to raise here. Nothing in the document is believed but that something went wrong."""
    found = document if isinstance(document, dict) else {}
    message = plain(found.get("message"))
    kind = str(found.get("type"))
    if kind == OutOfMemory.__name__:
        return OutOfMemory(message)
    if kind == NoSpace.__name__ and shutil.disk_usage(tempfile.gettempdir()).free < ROOM:
        return NoSpace(NO_ROOM)
    if kind not in KNOWN:
        return FailedInside(NO_NAME.sub("", kind)[:60] or "Error", message)
    code = NO_CODE.sub("", str(found.get("code") or ""))[:60] or None
    if issubclass(KNOWN[kind], InvalidInput):
        field = found.get("field")
        return KNOWN[kind](message, code=code, field=plain(field) if field is not None else None)  # type: ignore[call-arg]
    return KNOWN[kind](message, code=code)


def plain(text: object) -> str:
    """At most 2,000 characters that can be shown and stored: others are replaced."""
    shown = (each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(text)[:LONGEST])
    return "".join(shown)
