"""Conversions between calibration caches and Q/DQ: made, ended, deleted, and the files that they left."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.domain.conversion import ConversionSettings, ConversionSummary
from service.domain.errors import NotFound
from service.domain.states import ConversionState, ResourceState, UnitKind, move_conversion
from service.store import quotas
from service.store.blobs import Blob
from service.store.clock import now
from service.store.identifiers import Prefix, could_be_id, new_id
from service.store.tables import ConversionFileRow, ConversionRow, ModelRow, UnitRow
from service.store.units import NewUnit, add_units


@dataclass(frozen=True)
class ConvertedFile:
    """A stored file of a conversion."""

    name: str
    media_type: str
    blob: Blob


def create(
    session: Session, settings: ConversionSettings, model: ModelRow, *, queue: str
) -> tuple[ConversionRow, str | None]:
    """The conversion, and the queue to hint at (None: it waits for the model's check); raises QuotaExceeded.

    ``model``: its row, and that of the cache, do not change until the transaction ends (``resources.share``).
    """
    quotas.check_conversions(session)
    row = ConversionRow(
        id=new_id(Prefix.CONVERSION),
        model_id=model.id,
        cache_id=settings.calibration,
        settings=settings.model_dump(mode="json"),
        state=ConversionState.CONVERTING,
        summary={},
        created_at=now(),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    waiting = model.state == ResourceState.CHECKING
    add_units(session, [NewUnit(UnitKind.CONVERT, row.id, queue, waiting=waiting, project_id=row.project_id)])
    return row, None if waiting else queue


def get(session: Session, conversion_id: str) -> ConversionRow:
    """The conversion; raises NotFound."""
    return _present(session.get(ConversionRow, conversion_id) if could_be_id(conversion_id) else None, conversion_id)


def lock(session: Session, conversion_id: str) -> ConversionRow | None:
    """The conversion's row, locked until the transaction ends; None where it was deleted."""
    return session.get(ConversionRow, conversion_id, with_for_update=True, populate_existing=True)


def _present(row: ConversionRow | None, conversion_id: str) -> ConversionRow:
    if row is None:
        raise NotFound(f"there is no conversion {conversion_id!r}", code="conversion-not-found")
    return row


def succeed(session: Session, row: ConversionRow, summary: ConversionSummary, files: Sequence[ConvertedFile]) -> None:
    """End a locked conversion with what it made; raises IllegalMove where it has ended."""
    row.state = move_conversion(ConversionState(row.state), ConversionState.SUCCEEDED)
    row.summary = summary.model_dump(mode="json")
    row.finished_at = now()
    for each in files:
        file = ConversionFileRow(conversion_id=row.id, name=each.name, media_type=each.media_type)
        file.sha256, file.size = each.blob.sha256, each.blob.size
        session.add(file)
    session.flush()


def fail(session: Session, row: ConversionRow, *, code: str, problem: str) -> None:
    """End a locked conversion with the reason why there is nothing; raises IllegalMove where it has ended."""
    row.state = move_conversion(ConversionState(row.state), ConversionState.FAILED)
    row.problem_code, row.problem = code, problem
    row.finished_at = now()
    session.flush()


def remove(session: Session, conversion_id: str) -> None:
    """Delete a conversion with its work and files, however far it is; raises NotFound."""
    row = _present(lock(session, conversion_id) if could_be_id(conversion_id) else None, conversion_id)
    session.execute(delete(UnitRow).where(UnitRow.subject_id == row.id))
    session.execute(delete(ConversionRow).where(ConversionRow.id == row.id))


def files(session: Session, conversion_id: str) -> list[ConversionFileRow]:
    """The files of a conversion, by name."""
    query = select(ConversionFileRow).where(ConversionFileRow.conversion_id == conversion_id)
    return list(session.scalars(query.order_by(ConversionFileRow.name)))
