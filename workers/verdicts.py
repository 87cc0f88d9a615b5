"""The verdict on an upload, and what follows from it for what waits for it: sweeps and conversions. Opens no file."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.domain.states import ResourceState, SweepState, UnitKind, UnitState
from service.store import conversions, units
from service.store.endings import end_sweep
from service.store.tables import ConversionRow, DatasetRow, ModelRow, SweepRow, UnitRow

Resource = ModelRow | DatasetRow


def checked_resource(session: Session, kind: UnitKind, subject_id: str) -> Resource | None:
    """What a check is about; None where it was deleted."""
    if kind is UnitKind.CHECK_MODEL:
        return session.get(ModelRow, subject_id)
    return session.get(DatasetRow, subject_id)


def give_up(session: Session, kind: UnitKind, subject_id: str, reason: str) -> None:
    """End what a unit outside of sweeps was about, after its last attempt; nothing where it was deleted."""
    if kind is UnitKind.CONVERT:
        conversion = conversions.lock(session, subject_id)
        if conversion is not None:
            conversions.fail(session, conversion, code="conversion-failed", problem=reason)
        return
    resource = checked_resource(session, kind, subject_id)
    if resource is not None:
        reject(session, resource, reason)


def accept(session: Session, resource: Resource, info: Mapping[str, Any]) -> list[str]:
    """Mark the resource as ready and queue what waits for nothing else; the queues to be told."""
    resource.state, resource.info = ResourceState.READY, {**resource.info, **info}
    session.flush()
    queues = []
    for sweep in _waiting(session, resource):
        subjects: list[Resource] = [
            session.get_one(ModelRow, sweep.model_id),
            session.get_one(DatasetRow, sweep.dataset_id),
            session.get_one(DatasetRow, sweep.calibration_id),
        ]
        if all(each.state == ResourceState.READY for each in subjects):
            for unit in units.units_of(session, sweep.id, UnitKind.PREPARE):
                unit.state = UnitState.QUEUED
                queues.append(unit.queue)
    for _, unit in _waiting_conversions(session, resource):
        unit.state = UnitState.QUEUED
        queues.append(unit.queue)
    session.flush()
    return queues


def reject(session: Session, resource: Resource, reason: str) -> None:
    """Mark the resource as rejected; what waited for it fails with the same reason."""
    resource.state, resource.problem = ResourceState.REJECTED, reason
    noun = "model" if isinstance(resource, ModelRow) else "evaluation set"
    for sweep in _waiting(session, resource):
        problem = f"the {noun} was rejected: {reason}"
        end_sweep(session, sweep, SweepState.FAILED, code="rejected-file", problem=problem)
    for conversion, unit in _waiting_conversions(session, resource):
        unit.state = UnitState.FAILED
        conversions.fail(session, conversion, code="rejected-file", problem=f"the model was rejected: {reason}")


def _waiting(session: Session, resource: Resource) -> list[SweepRow]:
    uses = (
        (SweepRow.model_id == resource.id)
        | (SweepRow.dataset_id == resource.id)
        | (SweepRow.calibration_id == resource.id)
    )
    waiting = select(UnitRow.sweep_id).where(UnitRow.state == UnitState.WAITING)
    query = select(SweepRow).where(uses, SweepRow.state == SweepState.QUEUED, SweepRow.id.in_(waiting))
    return list(session.scalars(query.order_by(SweepRow.id).with_for_update()))


def _waiting_conversions(session: Session, resource: Resource) -> list[tuple[ConversionRow, UnitRow]]:
    # for their model: a calibration cache is never checked
    waiting = (UnitRow.kind == UnitKind.CONVERT) & (UnitRow.state == UnitState.WAITING)
    query = (
        select(ConversionRow, UnitRow)
        .join(UnitRow, UnitRow.subject_id == ConversionRow.id)
        .where(ConversionRow.model_id == resource.id, waiting)
    )
    rows = session.execute(query.order_by(ConversionRow.id).with_for_update())
    return [(conversion, unit) for conversion, unit in rows]
