"""A clock of SQLite that can be jumped: each connection takes the time plus what a file says, in seconds.

SQLite has no server and so no clock of its own, but ``julianday``, which every connection of a process can redefine.
"""

import os
import time
from pathlib import Path
from typing import Any

VARIABLE = "CHAOS_CLOCK"
JULIAN_DAY_OF_1970 = 2440587.5


def install() -> None:
    """All SQLite connections of this process see that clock, where the environment names its file."""
    from service.store import database

    name = os.environ.get(VARIABLE)
    if name is None:
        return
    file, configure = Path(name), database._configure_sqlite

    def configured(connection: Any, record: Any) -> None:
        configure(connection, record)
        connection.create_function("julianday", 1, lambda _now: julian_day(time.time() + skew(file)))

    database._configure_sqlite = configured


def skew(file: Path) -> float:
    """By how many seconds the clock is ahead."""
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return 0.0


def julian_day(seconds: float) -> float:
    """Seconds since 1970 as SQLite tells the time."""
    return seconds / 86400.0 + JULIAN_DAY_OF_1970
