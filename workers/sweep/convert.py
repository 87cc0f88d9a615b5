"""Converts between a calibration cache and Q/DQ, in the worker's child: a unit of its own, outside of any sweep."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from service import logs
from service.domain.caches import CacheAlgorithm
from service.domain.conversion import DEFAULT_VERSION, ConversionSettings, ConversionSummary
from service.domain.errors import InvalidInput
from service.domain.settings import WeightGranularity
from service.inspection.calibration_cache import read_cache, write_cache
from service.store import conversions, units
from service.store.blobs import BlobStore
from service.store.conversions import ConvertedFile
from service.store.tables import CalibrationRow, ConversionRow, ModelRow
from workers.context import WorkerContext
from workers.exports.conversion import to_qdq
from workers.exports.lint_rules import Finding
from workers.exports.model_file import open_upload
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_lint import lint_qdq
from workers.exports.qdq_onnx import QdqSettings
from workers.exports.to_cache import to_cache
from workers.lease import HeldLease
from workers.models.private_folder import private_folder

QDQ, PLAIN, CACHE, DETAILS = "qdq.onnx", "float32.onnx", "calibration.cache", "conversion.json"
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
    return _to_cache(context.blobs, settings, model) if cache is None else _to_qdq(context, settings, model, cache)


def _to_qdq(context: WorkerContext, settings: ConversionSettings, model: ModelRow, row: CalibrationRow) -> Converted:
    blobs = context.blobs
    cache = read_cache(blobs.read(row.sha256))
    asked = QdqSettings(
        per_channel=settings.weights is not WeightGranularity.PER_TENSOR,
        transposed_axis=1 if settings.transposed_axis is None else settings.transposed_axis,
        half_fallback=bool(settings.half),
    )
    with blobs.local(model.sha256) as path:
        made = to_qdq(path, cache, asked, libraries=context.settings.custom_op_libraries)
    export, ranges = made.export, made.ranges
    findings = lint_qdq(export.model, export.weights)
    details = {
        "int8": list(export.int8),
        "left_float": [asdict(each) for each in ranges.left_float],
        "kept_float32": [asdict(each) for each in export.kept_float32],
        "rescaled": [asdict(each) for each in export.rescaled],
        "renamed": [asdict(each) for each in ranges.renamed],
        "unused": list(ranges.unused),
        "lint": _told(findings),
    }
    summary = ConversionSummary(
        int8=len(export.int8),
        left_float=len(ranges.left_float),
        entries=len(cache.entries),
        unused=len(ranges.unused),
        findings=len(findings),
    )
    with private_folder() as folder:
        written = write_onnx(folder / QDQ, export.model, export.weights)
        graphs = [ConvertedFile(each.name, ONNX_TYPE, blobs.put_file(each)) for each in written]
    return Converted(summary, (*graphs, _details(blobs, details)))


def _to_cache(blobs: BlobStore, settings: ConversionSettings, model: ModelRow) -> Converted:
    with blobs.local(model.sha256) as path:
        opened = open_upload(path)
    findings = lint_qdq(opened.model, opened.weights)
    made = to_cache(
        opened.model,
        opened.weights,
        version=settings.tensorrt_version or DEFAULT_VERSION,
        algorithm=settings.algorithm or CacheAlgorithm.ENTROPY_2,
    )
    details = {
        "entries": [{"tensor": each.tensor, "scale": each.scale} for each in made.cache.entries],
        "several_scales": [asdict(each) for each in made.several_scales],
        "lint": _told(findings),
    }
    summary = ConversionSummary(
        entries=len(made.cache.entries), merged=len(made.several_scales), findings=len(findings)
    )
    with private_folder() as folder:
        written = write_onnx(folder / PLAIN, made.model, made.weights)
        graphs = [ConvertedFile(each.name, ONNX_TYPE, blobs.put_file(each)) for each in written]
    cache = ConvertedFile(CACHE, TEXT, blobs.put(write_cache(made.cache)))
    return Converted(summary, (*graphs, cache, _details(blobs, details)))


def _told(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [asdict(each) | {"cost": each.cost} for each in findings]


def _details(blobs: BlobStore, document: dict[str, Any]) -> ConvertedFile:
    content = (json.dumps(document, indent=1) + "\n").encode()
    return ConvertedFile(DETAILS, JSON, blobs.put(content))
