"""Token buckets, one for each API key: a request takes a token, and time brings tokens back, up to a burst.

Where several APIs share PostgreSQL the buckets lie in the keys' rows. On SQLite there is one API only, and its memory
will do: a write for every request would wait for the workers' writes.
"""

import threading
import time
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from service.store.clock import now
from service.store.database import Database
from service.store.tables import KeyRow


@dataclass(frozen=True)
class Rate:
    """``per_second``: tokens that come back; ``burst``: the most that a bucket holds."""

    per_second: float
    burst: int


class Buckets(Protocol):
    """Gives out tokens."""

    def take(self, key_id: str) -> float:
        """Take a token: 0.0, or where there is none the seconds until there is one."""


def buckets_of(database: Database, rate: Rate) -> Buckets:
    """The buckets that go with the database."""
    return MemoryBuckets(rate) if database.is_sqlite else DatabaseBuckets(database, rate)


class MemoryBuckets:
    """Buckets of this process."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str) -> float:
        """Take a token, by this process's clock."""
        clock = time.monotonic()
        with self._lock:
            tokens, filled_at = self._held.get(key_id, (float(self._rate.burst), clock))
            tokens = min(self._rate.burst, tokens + (clock - filled_at) * self._rate.per_second)
            granted = tokens >= 1
            self._held[key_id] = (tokens - granted, clock)
        return 0.0 if granted else (1 - tokens) / self._rate.per_second


class DatabaseBuckets:
    """Buckets that every API on this database shares."""

    def __init__(self, database: Database, rate: Rate) -> None:
        self._database, self._rate = database, rate

    def take(self, key_id: str) -> float:
        """Take a token, by the database's clock."""
        level = func.least(
            float(self._rate.burst),
            case(
                (KeyRow.tokens.is_(None), float(self._rate.burst)),
                else_=KeyRow.tokens + (now() - KeyRow.refilled_at) * self._rate.per_second,
            ),
        )
        taken = (
            update(KeyRow)
            .where(KeyRow.id == key_id, level >= 1)
            .values(tokens=level - 1, refilled_at=now())
            .returning(KeyRow.id)
            .execution_options(synchronize_session=False)
        )
        with self._database.write() as session:
            if session.scalar(taken) is not None:
                return 0.0
            return self._wait(session, key_id, level)

    def _wait(self, session: Session, key_id: str, level: object) -> float:
        held = session.scalar(select(level).where(KeyRow.id == key_id))  # type: ignore[call-overload]
        return 0.0 if held is None else max(0.0, (1 - float(held)) / self._rate.per_second)
