"""The lines of the logs, of API and workers alike: for people or as JSON, with the ids of what is being done.

No line holds an API key or a password of a URL, whoever wrote it and wherever it came from.
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]

_FIELDS: ContextVar[dict[str, str] | None] = ContextVar("quantsieve_log_fields", default=None)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SECRETS = (
    (re.compile(r"\bqs_([0-9a-z]{12})_[0-9a-z]+"), r"qs_\1_***"),  # the id of a key may be known
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]*:[^\s/'\"]*@", re.IGNORECASE), r"\1***@"),
    (re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE), r"\1***"),
)


@contextmanager
def fields(**ids: str | None) -> Iterator[None]:
    """Every line that is logged in the block, by this thread or task, has these fields; None is left out."""
    token = _FIELDS.set({**(_FIELDS.get() or {}), **{name: value for name, value in ids.items() if value is not None}})
    try:
        yield
    finally:
        _FIELDS.reset(token)


def note(**ids: str) -> None:
    """Add fields for the rest of the block that is open."""
    _FIELDS.set({**(_FIELDS.get() or {}), **ids})


class Line(logging.Formatter):
    """One record as one line, or with its traceback as several where it is for people."""

    def __init__(self, format: LogFormat = "text", **constant: str) -> None:
        super().__init__()
        self._format = format
        self._constant = constant

    def format(self, record: logging.LogRecord) -> str:
        """The line, without any secret."""
        ids = {**self._constant, **(_FIELDS.get() or {})}
        text = self._json(record, ids) if self._format == "json" else self._text(record, ids)
        return without_secrets(text)

    def _text(self, record: logging.LogRecord, ids: dict[str, str]) -> str:
        # a stranger's text may be part of it, and must not look like a line of its own
        message = _CONTROL.sub(lambda found: repr(found[0])[1:-1], record.getMessage())
        shown = " ".join(f"{name}={value}" for name, value in ids.items())
        line = f"{self.formatTime(record)} {record.levelname} {record.name} {message}"
        more = [self.formatException(record.exc_info)] if record.exc_info else []
        more += [record.stack_info] if record.stack_info else []
        return "\n".join([f"{line} [{shown}]" if shown else line, *more])

    def _json(self, record: logging.LogRecord, ids: dict[str, str]) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **ids,
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            document["stack"] = record.stack_info
        return json.dumps(document, default=str)


def without_secrets(text: str) -> str:
    """The text with keys and passwords blotted out."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def log_to_stderr(format: LogFormat, level: int, **constant: str) -> None:
    """All logs of this process go to standard error, in this form alone; ``constant``: fields of every line."""
    handler = logging.StreamHandler()
    handler.setFormatter(Line(format, **constant))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
