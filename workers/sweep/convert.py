"""Converts between a calibration cache and Q/DQ, in a sandbox: a unit of its own, outside of any sweep."""

import json
from dataclasses import dataclass

from service import logs
from service.domain.conversion import ConversionSettings, ConversionSummary
from service.domain.errors import InvalidInput
from service.store import conversions, units
from service.store.conversions import ConvertedFile
from service.store.tables import CalibrationRow, ConversionRow, ModelRow
from workers.context import WorkerContext
from workers.lease import HeldLease
from workers.sandbox.conversion import CACHE, sandboxed_to_cache, sandboxed_to_qdq

DETAILS = "conversion.json"
ONNX_TYPE, TEXT, JSON = "application/octet-stream", "text/plain; charset=utf-8", "application/json"


@dataclass(frozen=True)
class Converted:
    """What a conversion made; the files are stored, and nothing names them yet."""

    summary: ConversionSummary
    files: tuple[ConvertedFile, ...]


def run(context: WorkerContext, held: HeldLease) -> None:
    """Make one conversion, and record its files or why there are none."""
    lease = held.lease
    with context.database.read() as session:
        row = session.get(ConversionRow, lease.subject_id)
        if row is None:
            return
        logs.note(project=row.project_id)
        settings = ConversionSettings.model_validate(row.settings)
        model = session.get_one(ModelRow, row.model_id)
        cache = session.get_one(CalibrationRow, row.cache_id) if row.cache_id is not None else None
    made: Converted | InvalidInput
    try:
        made = _converted(context, settings, model, cache)
    except InvalidInput as error:
        made = error
    with context.database.write() as session:
        row = conversions.lock(session, lease.subject_id)
        units.finish(session, lease, result={})  # fenced: where the conversion was deleted, its unit is gone too
        assert row is not None
        if isinstance(made, InvalidInput):
            conversions.fail(session, row, code=made.code, problem=made.message)
        else:
            conversions.succeed(session, row, made.summary, made.files)


def _converted(
    context: WorkerContext, settings: ConversionSettings, model: ModelRow, cache: CalibrationRow | None
) -> Converted:
    blobs, sandbox = context.blobs, context.sandbox
    with blobs.local(model.sha256) as path:
        if cache is None:
            made = sandboxed_to_cache(sandbox, path, settings)
        else:
            libraries = context.settings.custom_op_libraries
            content = blobs.read(cache.sha256)
            made = sandboxed_to_qdq(sandbox, path, settings, cache=content, libraries=libraries)
    details = (json.dumps(made.details, indent=1) + "\n").encode()
    files = [ConvertedFile(name, _type(name), blobs.put(content)) for name, content in made.files.items()]
    return Converted(made.summary, (*files, ConvertedFile(DETAILS, JSON, blobs.put(details))))


def _type(name: str) -> str:
    return TEXT if name == CACHE else ONNX_TYPE
