"""Whether a project may have more: more work that waits, more files. Sessions of no project have no quota."""

from sqlalchemy import Subquery, func, select, union_all
from sqlalchemy.orm import Session

from service.domain.errors import QuotaExceeded
from service.domain.states import TERMINAL_SWEEP_STATES, ConversionState
from service.domain.tenant import Limits
from service.store import projects
from service.store.blobs import Blob
from service.store.tables import (
    ArtifactRow,
    CalibrationRow,
    ConversionFileRow,
    ConversionRow,
    DatasetRow,
    ModelRow,
    ProjectRow,
    SweepRow,
    UnitRow,
)
from service.store.tenancy import tenant_of
from service.store.units import OPEN_STATES


def check_sweeps(session: Session) -> None:
    """Raise QuotaExceeded where one more sweep is too much. The project is locked until the transaction ends."""
    limits = _locked(session)
    if limits is None:
        return
    held = session.scalar(select(func.count(SweepRow.id)).where(SweepRow.state.not_in(TERMINAL_SWEEP_STATES))) or 0
    if held >= limits.open_sweeps:
        message = (
            f"this project has {held} sweeps that have not ended, of {limits.open_sweeps} that it may have; wait for "
            "one, or cancel one"
        )
        raise QuotaExceeded(message, code="too-many-sweeps")
    _check_units(session, limits)


def check_conversions(session: Session) -> None:
    """Raise QuotaExceeded where one more conversion is too much."""
    limits = _locked(session)
    if limits is not None:
        _check_units(session, limits)


def _check_units(session: Session, limits: Limits) -> None:
    of_sweeps = (
        select(func.count(UnitRow.id))
        .join(SweepRow, SweepRow.id == UnitRow.sweep_id)
        .where(UnitRow.state.in_(OPEN_STATES))
    )
    conversions = select(func.count(ConversionRow.id)).where(ConversionRow.state == ConversionState.CONVERTING)
    held = (session.scalar(of_sweeps) or 0) + (session.scalar(conversions) or 0)
    if held >= limits.queued_units:
        message = (
            f"this project has {held} work units that wait or run, of {limits.queued_units} that it may have; wait "
            "until some are done, or cancel a sweep"
        )
        raise QuotaExceeded(message, code="too-much-queued")


def check_bytes(session: Session, size: int) -> None:
    """Raise QuotaExceeded where a file of ``size`` bytes is too much."""
    limits = _locked(session)
    if limits is None:
        return
    held = stored_bytes(session)
    if held + size > limits.stored_bytes:
        message = (
            f"this project has {held} bytes of files, of {limits.stored_bytes} that it may have; {size} more do not "
            "fit: delete what is not needed"
        )
        raise QuotaExceeded(message, code="too-much-stored")


def check_upload(session: Session, blob: Blob) -> None:
    """Raise QuotaExceeded where a file that comes in is too much; one that the project has already never is."""
    for table in (ModelRow, DatasetRow, CalibrationRow):
        if session.scalar(select(table.id).where(table.sha256 == blob.sha256).limit(1)) is not None:
            return
    check_bytes(session, blob.size)


def every_file() -> Subquery:
    """(project_id, size) of each upload, and of each file of a sweep or a conversion."""
    uploads = [select(each.project_id, each.size) for each in (ModelRow, DatasetRow, CalibrationRow)]
    of_sweeps = select(SweepRow.project_id, ArtifactRow.size).join(SweepRow, SweepRow.id == ArtifactRow.sweep_id)
    of_conversions = select(ConversionRow.project_id, ConversionFileRow.size).join(
        ConversionRow, ConversionRow.id == ConversionFileRow.conversion_id
    )
    return union_all(*uploads, of_sweeps, of_conversions).subquery()


def stored_bytes(session: Session) -> int:
    """The bytes of all uploads of the session's project, and of the files of its sweeps and conversions."""
    return int(session.scalar(select(func.sum(every_file().c.size))) or 0)


def _locked(session: Session) -> Limits | None:
    """The limits in force; nobody else of the project adds anything meanwhile."""
    tenant = tenant_of(session)
    if tenant is None:
        return None
    row = session.get(ProjectRow, tenant.project_id, with_for_update={"key_share": True}, populate_existing=True)
    assert row is not None
    return projects.limits_of(row, tenant.limits)
