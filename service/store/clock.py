"""The database's own clock as a SQL expression, so that leases never compare the clocks of two machines."""

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class now(FunctionElement[float]):  # noqa: N801  (reads as the SQL function that it is)
    """Seconds since 1970 UTC, by the database's clock."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite(element: now, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql(element: now, compiler: Any, **kw: Any) -> str:
    # clock_timestamp, not now(): a transaction that waited for a lock must see the time after the wait
    return "extract(epoch from clock_timestamp())::double precision"
