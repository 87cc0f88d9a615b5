"""Uploaded models, evaluation sets and calibration caches: one row for the same bytes (and preprocessing).

A worker checks models and evaluation sets; a cache is read as a whole before it comes here.
"""

import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.domain.errors import Conflict, NotFound
from service.domain.settings import BackendName, Preprocessing
from service.domain.states import ResourceState, UnitKind
from service.store import quotas
from service.store.blobs import Blob
from service.store.clock import now
from service.store.identifiers import Prefix, could_be_id, new_id
from service.store.tables import CalibrationRow, ConversionRow, DatasetRow, ModelRow, SweepRow, UnitRow
from service.store.units import NewUnit, add_units

Resource = TypeVar("Resource", ModelRow, DatasetRow, CalibrationRow)

NOUNS = {ModelRow: "model", DatasetRow: "dataset", CalibrationRow: "calibration"}
QUEUE_OF_FORMAT = {"pt2": BackendName.TORCH, "onnx": BackendName.ONNXRUNTIME}


@dataclass(frozen=True)
class NewFile:
    """An uploaded file: what it is called, its bytes, its format, and what was seen of it cheaply."""

    name: str
    blob: Blob
    format: str
    info: dict[str, Any] = field(default_factory=dict)


def add_model(session: Session, file: NewFile) -> tuple[ModelRow, str | None]:
    """The model of these bytes, and the queue to hint at (None: it was there already)."""
    existing = select(ModelRow).where(ModelRow.sha256 == file.blob.sha256)
    row = ModelRow(id=new_id(Prefix.MODEL), **_columns(file))
    queue = QUEUE_OF_FORMAT[file.format]
    found = _existing_or_add(session, existing, row)
    if found is not row:
        return found, None
    add_units(session, [NewUnit(UnitKind.CHECK_MODEL, row.id, queue, project_id=row.project_id)])
    return row, queue


def add_dataset(
    session: Session, file: NewFile, preprocessing: Preprocessing, *, queue: str
) -> tuple[DatasetRow, str | None]:
    """The evaluation set of these bytes and this preprocessing, and the queue to hint at (None: it was there).

    ``queue``: that of the workers that check evaluation sets.
    """
    document = preprocessing.model_dump(mode="json", exclude_none=True)
    key = json.dumps(document, sort_keys=True)
    existing = select(DatasetRow).where(DatasetRow.sha256 == file.blob.sha256, DatasetRow.preprocessing_key == key)
    row = DatasetRow(id=new_id(Prefix.DATASET), preprocessing=document, preprocessing_key=key, **_columns(file))
    found = _existing_or_add(session, existing, row)
    if found is not row:
        return found, None
    add_units(session, [NewUnit(UnitKind.CHECK_DATASET, row.id, queue, project_id=row.project_id)])
    return row, queue


def add_calibration(session: Session, name: str, blob: Blob, info: dict[str, Any]) -> tuple[CalibrationRow, bool]:
    """The cache of these bytes, and whether it was there already. ``info``: what reading it found."""
    existing = select(CalibrationRow).where(CalibrationRow.sha256 == blob.sha256)
    row = CalibrationRow(
        id=new_id(Prefix.CALIBRATION), name=name, sha256=blob.sha256, size=blob.size, info=info, created_at=now()
    )
    found = _existing_or_add(session, existing, row)
    return found, found is not row


def _columns(file: NewFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "sha256": file.blob.sha256,
        "size": file.blob.size,
        "format": file.format,
        "info": file.info,
        "state": ResourceState.CHECKING,
        "created_at": now(),
    }


def _existing_or_add(session: Session, existing: Any, row: Resource) -> Resource:
    found: Resource | None = session.scalar(existing)
    if found is not None:
        return found
    quotas.check_bytes(session, row.size)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:  # the same bytes came in twice at the same time, and the other was first
        winner: Resource = session.scalars(existing).one()
        return winner
    session.refresh(row)
    return row


def get(session: Session, table: type[Resource], resource_id: str) -> Resource:
    """The row; raises NotFound."""
    return _found(session, table, resource_id)


def share(session: Session, table: type[Resource], resource_id: str) -> Resource:
    """The row, which nobody can change or delete until this transaction ends; raises NotFound."""
    return _found(session, table, resource_id, lock={"read": True})


def _found(session: Session, table: type[Resource], resource_id: str, lock: Any = None) -> Resource:
    row = None
    if could_be_id(resource_id):
        row = session.get(table, resource_id, with_for_update=lock, populate_existing=lock is not None)
    if row is None:
        noun = NOUNS[table]
        raise NotFound(f"there is no {noun} {resource_id!r}", code=f"{noun}-not-found")
    return row


def remove(session: Session, table: type[Resource], resource_id: str) -> None:
    """Delete the row and its check; raises NotFound, or Conflict while a sweep or a conversion uses it."""
    row = _found(session, table, resource_id, lock=True)
    users = _users(session, row)
    if users:
        noun = NOUNS[table]
        raise Conflict(f"{' and '.join(users)} used {noun} {row.id}; delete them first", code=f"{noun}-in-use")
    session.execute(delete(UnitRow).where(UnitRow.subject_id == row.id))
    session.delete(row)
    session.flush()


def _users(session: Session, row: ModelRow | DatasetRow | CalibrationRow) -> list[str]:
    """What still needs the row, in words: ``2 sweeps``."""
    uses: dict[str, tuple[type[SweepRow | ConversionRow], ColumnElement[bool]]] = {}
    match row:
        case ModelRow():
            uses["sweep"] = SweepRow, SweepRow.model_id == row.id
            uses["conversion"] = ConversionRow, ConversionRow.model_id == row.id
        case DatasetRow():
            uses["sweep"] = SweepRow, or_(SweepRow.dataset_id == row.id, SweepRow.calibration_id == row.id)
        case CalibrationRow():
            uses["sweep"] = SweepRow, SweepRow.cache_id == row.id
            uses["conversion"] = ConversionRow, ConversionRow.cache_id == row.id
    counts = {
        noun: session.scalar(select(func.count()).select_from(table).where(condition)) or 0
        for noun, (table, condition) in uses.items()
    }
    return [f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in counts.items() if count]
