"""Checks an upload with the real parsers, in a sandbox: models that open, evaluation sets that read."""

from pathlib import Path
from typing import Any

import numpy as np

from service import logs
from service.domain.errors import InvalidInput, RejectedFile
from service.domain.settings import BackendName
from service.store import units
from service.store.tables import DatasetRow, ModelRow
from workers.backends.protocol import OpenSettings, OutOfMemory
from workers.context import WorkerContext
from workers.lease import HeldLease
from workers.models.onnx_graph import QUANTIZED_CODE
from workers.sandbox.conversion import sandboxed_pairs
from workers.sandbox.errors import SandboxDied
from workers.sandbox.model import open_sandboxed_model
from workers.sweep.job import open_dataset
from workers.verdicts import accept, checked_resource, reject

FORMAT_BACKEND = {"onnx": BackendName.ONNXRUNTIME, "pt2": BackendName.TORCH}


def run(context: WorkerContext, held: HeldLease) -> None:
    """Check one resource, record the verdict, and let the sweeps go on that wait for it."""
    lease = held.lease
    with context.database.read() as session:
        resource = checked_resource(session, lease.kind, lease.subject_id)
    if resource is None:
        return
    logs.note(project=resource.project_id)
    info: dict[str, Any] = {}
    problem: str | None = None
    try:
        info = _model_info(context, resource) if isinstance(resource, ModelRow) else _dataset_info(context, resource)
    except InvalidInput as error:
        problem = error.message
    except (SandboxDied, OutOfMemory) as error:
        problem = f"the file cannot be opened within the limits of this installation: {error}"
    queues: list[str] = []
    with context.database.write() as session:
        units.finish(session, lease, result={})
        row = checked_resource(session, lease.kind, lease.subject_id)
        if row is not None and problem is not None:
            reject(session, row, problem)
        elif row is not None:
            queues = accept(session, row, info)
    for queue in queues:
        context.hints.publish(queue)


def _model_info(context: WorkerContext, row: ModelRow) -> dict[str, Any]:
    with context.blobs.local(row.sha256) as path:
        return _info_of(context, path, row.format, OpenSettings(libraries=context.libraries))


def _info_of(context: WorkerContext, path: Path, format: str, settings: OpenSettings) -> dict[str, Any]:
    try:
        opened = open_sandboxed_model(context.sandbox, FORMAT_BACKEND[format], path, settings)
    except RejectedFile as error:
        if error.code != QUANTIZED_CODE:
            raise
        return _quantized_info(context, path, error)
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


def _quantized_info(context: WorkerContext, path: Path, error: RejectedFile) -> dict[str, Any]:
    """Of a Q/DQ model, whose scales can become a cache; raises ``error`` where it is quantized in another way."""
    pairs = sandboxed_pairs(context.sandbox, path)
    if not pairs:
        raise error
    return {"quantized": True, "layers": 0, "pairs": pairs}


def _dataset_info(context: WorkerContext, row: DatasetRow) -> dict[str, Any]:
    opened = open_dataset(context, row)
    opened.batch(np.arange(1))  # a sample that cannot be decoded is found now, not in the middle of a sweep
    return {
        "samples": opened.samples,
        "arrays": {name: {"shape": list(spec.shape), "dtype": str(spec.dtype)} for name, spec in opened.specs.items()},
        "has_labels": opened.targets is not None,
        "class_names": list(opened.class_names) if opened.class_names else None,
        "class_counts": {str(key): int(value) for key, value in (opened.class_counts or {}).items()},
    }
