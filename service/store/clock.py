"""The database's own clock as a SQL expression, so that leases never compare the clocks of two machines."""

from typing import Any

from sqlalchemy import ColumnElement, Double, case
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
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


def spent(
    start: InstrumentedAttribute[float | None], end: InstrumentedAttribute[float | None]
) -> ColumnElement[float | None]:
    """Seconds from the one to the other; 0 where the clock was set back in between: how long it was is not known."""
    return case((end > start, end - start), else_=0.0)
