"""The decision as a graph that deploys: made, checked, linted, and compared with the variant that was verified."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from service.domain.costs import Precision
from service.domain.errors import InvalidInput
from service.domain.file_check import FileCheck
from service.domain.settings import WeightGranularity
from workers.backends.onnx_reading import ReadModel, read_model
from workers.backends.protocol import OpenSettings
from workers.calibration.cache import CacheAlgorithm, write_cache
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_lint import lint_qdq
from workers.exports.qdq_onnx import QdqExport, QdqSettings, export_qdq
from workers.exports.to_cache import to_cache
from workers.sweep import mixed_check
from workers.sweep.job import Job
from workers.sweep.mixed_check import Compared
from workers.sweep.outcome import File

MODEL, CACHE, CHECKS = "mixed.onnx", "calibration.cache", "mixed.json"
CACHE_VERSION = "100300"
"""TensorRT 10.3: the last majors that read caches compare the algorithm's name only."""


@dataclass(frozen=True)
class MixedOnnx:
    """The files, and whether the graph is worth what was verified; None where that was not compared."""

    files: tuple[File, ...]
    check: FileCheck | None


def make(job: Job, fallback: frozenset[str]) -> MixedOnnx:
    """The graph (with its data beside it where it is larger than 2 GiB), the scales of all layers, and the checks.

    Where the graph cannot be made the checks say why, and stand alone.
    """
    try:
        return _made(job, fallback)
    except InvalidInput as error:
        return MixedOnnx((_checks({"made": False, "reason": error.message}),), None)


def _made(job: Job, fallback: frozenset[str]) -> MixedOnnx:
    asked = job.settings
    read = read_model(job.model_path, OpenSettings(asked.fuse_bn, asked.weights))
    half = asked.fallback_precision is Precision.FP16
    settings = QdqSettings(per_channel=asked.weights is WeightGranularity.PER_CHANNEL, half_fallback=half)
    made = export_qdq(read.program, read.found, job.amax, fallback=fallback, settings=settings)
    with tempfile.TemporaryDirectory(prefix="quantsieve-") as folder:
        written = write_onnx(Path(folder) / MODEL, made.model, made.weights)
        found = mixed_check.compare(job, Path(folder) / MODEL, frozenset(made.int8), asked.fallback_precision)
        graphs = tuple(File(each.name, "application/octet-stream", each.read_bytes()) for each in written)
    checks = {
        "made": True,
        "int8": list(made.int8),
        "fallback_precision": asked.fallback_precision,
        "kept_float32": [asdict(each) for each in made.kept_float32],
        "rescaled": [asdict(each) for each in made.rescaled],
        "lint": [asdict(each) | {"cost": each.cost} for each in lint_qdq(made.model, made.weights)],
        **_told(found),
    }
    cache = File(CACHE, "text/plain; charset=utf-8", _cache(job, read, settings))
    return MixedOnnx((*graphs, cache, _checks(checks)), found.check if isinstance(found, Compared) else None)


def _told(found: Compared | str) -> dict[str, Any]:
    """``compared``: of the outputs, relative root mean square; ``metric``: of the metric."""
    if isinstance(found, str):
        return {"compared": None, "metric": None, "reason": found}
    return {
        "compared": {"samples": found.check.samples, **found.outputs},
        "metric": found.check.model_dump(mode="json"),
    }


def _cache(job: Job, read: ReadModel, settings: QdqSettings) -> bytes:
    """Of every layer that has ranges: which of them are int8 is told elsewhere."""
    without = frozenset(each.layer.id for each in read.found) - {each.id for each in job.active_layers()}
    settings = replace(settings, half_fallback=False)
    whole: QdqExport = export_qdq(read.program, read.found, job.amax, fallback=without, settings=settings)
    found = to_cache(whole.model, whole.weights, version=CACHE_VERSION, algorithm=CacheAlgorithm.ENTROPY_2)
    return write_cache(found.cache)


def _checks(document: Mapping[str, Any]) -> File:
    return File(CHECKS, "application/json", (json.dumps(document, indent=1) + "\n").encode())
