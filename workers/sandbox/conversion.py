"""Conversions between a calibration cache and Q/DQ, made of an uploaded model in a sandbox."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from service.domain.caches import CacheAlgorithm
from service.domain.conversion import DEFAULT_VERSION, ConversionSettings, ConversionSummary
from service.domain.settings import WeightGranularity
from service.inspection.calibration_cache import read_cache, write_cache
from workers.exports.conversion import to_qdq
from workers.exports.lint_rules import Finding
from workers.exports.model_file import open_upload
from workers.exports.onnx_file import write_onnx
from workers.exports.pairs import QdqGraph
from workers.exports.qdq_lint import lint_qdq
from workers.exports.qdq_onnx import QdqSettings
from workers.exports.to_cache import to_cache
from workers.sandbox.results import as_array, read_files, sent_files
from workers.sandbox.sandbox import Sandbox
from workers.sandbox.serving import Reply
from workers.sandbox.wire import Message

TO_QDQ, TO_CACHE, PAIRS = "to-qdq", "to-cache", "pairs"
QDQ, PLAIN, CACHE = "qdq.onnx", "float32.onnx", "calibration.cache"


@dataclass(frozen=True)
class ConvertedModel:
    """``files``: by name. ``details``: what is told beside the summary."""

    summary: ConversionSummary
    details: dict[str, Any]
    files: Mapping[str, bytes]


SETTINGS, SUMMARY = TypeAdapter(ConversionSettings), TypeAdapter(ConversionSummary)
DETAILS = TypeAdapter(dict[str, Any])


def served_to_qdq(files: Sequence[Path], asked: Message) -> Reply:
    """The inner side of ``sandboxed_to_qdq``."""
    settings = SETTINGS.validate_python(asked.document["settings"])
    libraries = [Path(each) for each in asked.document["libraries"]]
    cache = read_cache(asked.arrays[CACHE].tobytes())
    wanted = QdqSettings(
        per_channel=settings.weights is not WeightGranularity.PER_TENSOR,
        transposed_axis=1 if settings.transposed_axis is None else settings.transposed_axis,
        half_fallback=bool(settings.half),
    )
    made = to_qdq(files[0], cache, wanted, libraries=libraries)
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
    return _reply(summary, details, read_files(write_onnx(Path.cwd() / QDQ, export.model, export.weights)))


def served_to_cache(files: Sequence[Path], asked: Message) -> Reply:
    """The inner side of ``sandboxed_to_cache``."""
    settings = SETTINGS.validate_python(asked.document)
    opened = open_upload(files[0])
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
    written = read_files(write_onnx(Path.cwd() / PLAIN, made.model, made.weights))
    return _reply(summary, details, {**written, CACHE: as_array(write_cache(made.cache))})


def served_pairs(files: Sequence[Path], asked: Message) -> Reply:
    """How many Q/DQ pairs on activations the file has."""
    opened = open_upload(files[0])
    return Reply(len(QdqGraph(opened.model, opened.weights).activation_pairs))


def sandboxed_to_qdq(
    sandbox: Sandbox, path: Path, settings: ConversionSettings, *, cache: bytes, libraries: Sequence[Path]
) -> ConvertedModel:
    """The model with the scales of the cache in its graph; raises InvalidInput where that cannot be."""
    document = {"settings": settings.model_dump(mode="json"), "libraries": [str(each) for each in libraries]}
    arrays = {CACHE: as_array(cache)}
    return sandbox.run(TO_QDQ, [path], document, arrays, read=lambda answer: _read(answer, (QDQ,)))


def sandboxed_to_cache(sandbox: Sandbox, path: Path, settings: ConversionSettings) -> ConvertedModel:
    """The scales of a Q/DQ model, and the model without them; raises InvalidInput where that cannot be."""
    document = settings.model_dump(mode="json")
    return sandbox.run(TO_CACHE, [path], document, read=lambda answer: _read(answer, (PLAIN, CACHE)))


def sandboxed_pairs(sandbox: Sandbox, path: Path) -> int:
    """How many Q/DQ pairs on activations the model has; raises RejectedFile where it cannot be opened."""
    return sandbox.run(PAIRS, [path], read=lambda answer: int(answer.document))


def _reply(summary: ConversionSummary, details: dict[str, Any], files: Mapping[str, Any]) -> Reply:
    return Reply({"summary": summary.model_dump(mode="json"), "details": details}, files)


def _read(answer: Message, names: Sequence[str]) -> ConvertedModel:
    document = answer.document
    summary, details = SUMMARY.validate_python(document["summary"]), DETAILS.validate_python(document["details"])
    return ConvertedModel(summary, details, sent_files(answer.arrays, names))


def _told(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [each.document() for each in findings]
