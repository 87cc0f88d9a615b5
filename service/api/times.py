"""Stored times as the instants that documents show."""

from datetime import UTC, datetime


def instant(seconds: float) -> datetime:
    """Seconds since 1970 UTC as a time with its zone."""
    return datetime.fromtimestamp(seconds, UTC)


def instant_or_none(seconds: float | None) -> datetime | None:
    """The same for a time that may not have come yet."""
    return None if seconds is None else instant(seconds)
