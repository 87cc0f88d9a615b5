"""Keyset paging: newest first, by (created_at, id), with a cursor that callers need not understand."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from service.domain.errors import InvalidInput
from service.store.tables import (
    AuditRow,
    CalibrationRow,
    ConversionRow,
    DatasetRow,
    KeyRow,
    ModelRow,
    ProjectRow,
    SweepRow,
)

Row = TypeVar("Row", ModelRow, DatasetRow, CalibrationRow, SweepRow, ConversionRow, KeyRow, ProjectRow, AuditRow)


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows, and the cursor of those that follow (None: there are none)."""

    items: list[Row]
    next_cursor: str | None


def read_page(session: Session, table: type[Row], *, limit: int, cursor: str | None) -> Page[Row]:
    """The ``limit`` rows after the cursor; raises InvalidInput for a cursor that we did not give out."""
    query = select(table).order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
    if cursor is not None:
        created_at, row_id = _decode(cursor)
        query = query.where(tuple_(table.created_at, table.id) < (created_at, row_id))
    rows = list(session.scalars(query))
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, _encode(rows[-1].created_at, rows[-1].id) if more else None)


def _encode(created_at: float, row_id: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([created_at, row_id]).encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[float, str]:
    try:
        created_at, row_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, TypeError):
        created_at = row_id = None
    if isinstance(created_at, float) and isinstance(row_id, str) and "\0" not in row_id:
        return created_at, row_id
    raise InvalidInput("cursor is not one that this service gave out", field="cursor")
