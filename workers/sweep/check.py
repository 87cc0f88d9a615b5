"""Checks an upload with the real parsers, in the worker's child: models that open, evaluation sets that read."""

from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.domain.errors import InvalidInput
from service.domain.settings import BackendName
from service.domain.states import ResourceState, SweepState, UnitKind, UnitState
from service.store import units
from service.store.endings import end_sweep
from service.store.tables import DatasetRow, ModelRow, SweepRow, UnitRow
from service.store.units import Lease
from workers.backends.protocol import OpenSettings
from workers.backends.registry import backend
from workers.context import WorkerContext
from workers.lease import HeldLease
from workers.sweep.job import open_dataset

Resource = ModelRow | DatasetRow

FORMAT_BACKEND = {"onnx": BackendName.ONNXRUNTIME, "pt2": BackendName.TORCH}


def run(context: WorkerContext, held: HeldLease) -> None:
    """Check one resource, record the verdict, and let the sweeps go on that wait for it."""
    lease = held.lease
    with context.database.read() as session:
        resource = _resource(session, lease)
    if resource is None:
        return
    try:
        info = _model_info(context, resource) if isinstance(resource, ModelRow) else _dataset_info(context, resource)
    except InvalidInput as error:
        with context.database.write() as session:
            units.finish(session, lease, result={})
            reject(session, lease, error.message)
        return
    with context.database.write() as session:
        units.finish(session, lease, result={})
        row = _resource(session, lease)
        if row is None:
            return
        row.state, row.info = ResourceState.READY, {**row.info, **info}
        session.flush()
        queues = release_waiting(session, row.id)
    for queue in queues:
        context.hints.publish(queue)


def _resource(session: Session, lease: Lease) -> Resource | None:
    if lease.kind is UnitKind.CHECK_MODEL:
        return session.get(ModelRow, lease.subject_id)
    return session.get(DatasetRow, lease.subject_id)


def _model_info(context: WorkerContext, row: ModelRow) -> dict[str, Any]:
    name = FORMAT_BACKEND[row.format]
    opened = backend(name).open(context.blobs.path(row.sha256), OpenSettings())
    return {
        "inputs": [each.model_dump(mode="json") for each in opened.facts.inputs],
        "outputs": [each.model_dump(mode="json") for each in opened.facts.outputs],
        "layers": len(opened.facts.layers),
        "layer_names": [each.name for each in opened.facts.layers],
        "skipped": [each.model_dump(mode="json") for each in opened.facts.skipped],
        "folded_batch_norms": opened.facts.folded_batch_norms,
        "batch_size": opened.facts.batch_size,
        "macs": sum(each.macs or 0 for each in opened.facts.layers),
        "weight_bytes": sum(each.weight_bytes for each in opened.facts.layers),
    }


def _dataset_info(context: WorkerContext, row: DatasetRow) -> dict[str, Any]:
    opened = open_dataset(context.blobs, row)
    opened.batch(np.arange(1))  # a sample that cannot be decoded is found now, not in the middle of a sweep
    return {
        "samples": opened.samples,
        "arrays": {name: {"shape": list(spec.shape), "dtype": str(spec.dtype)} for name, spec in opened.specs.items()},
        "has_labels": opened.targets is not None,
        "class_names": list(opened.class_names) if opened.class_names else None,
        "class_counts": {str(key): int(value) for key, value in (opened.class_counts or {}).items()},
    }


def reject(session: Session, lease: Lease, reason: str) -> None:
    """Mark the resource as rejected; the sweeps that waited for it fail with the same reason."""
    row = _resource(session, lease)
    if row is None:
        return
    row.state, row.problem = ResourceState.REJECTED, reason
    for sweep in _sweeps_on(session, row.id):
        kind = "model" if isinstance(row, ModelRow) else "evaluation set"
        end_sweep(session, sweep, SweepState.FAILED, code="rejected-file", problem=f"the {kind} was rejected: {reason}")


def release_waiting(session: Session, resource_id: str) -> list[str]:
    """Queue the sweeps that waited for this resource and wait for nothing else; the queues to be told."""
    queues = []
    for sweep in _sweeps_on(session, resource_id):
        resources: list[Resource] = [
            session.get_one(ModelRow, sweep.model_id),
            session.get_one(DatasetRow, sweep.dataset_id),
        ]
        resources.append(session.get_one(DatasetRow, sweep.calibration_id))
        if all(each.state == ResourceState.READY for each in resources):
            for unit in units.units_of(session, sweep.id, UnitKind.PREPARE):
                unit.state = UnitState.QUEUED
                queues.append(unit.queue)
    session.flush()
    return queues


def _sweeps_on(session: Session, resource_id: str) -> list[SweepRow]:
    uses = (
        (SweepRow.model_id == resource_id)
        | (SweepRow.dataset_id == resource_id)
        | (SweepRow.calibration_id == resource_id)
    )
    waiting = select(UnitRow.sweep_id).where(UnitRow.state == UnitState.WAITING)
    query = select(SweepRow).where(uses, SweepRow.state == SweepState.QUEUED, SweepRow.id.in_(waiting))
    return list(session.scalars(query.order_by(SweepRow.id).with_for_update()))
