"""The decision as a graph that deploys: made, checked, linted, and compared with the variant that was verified."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from service.domain.caches import CacheAlgorithm
from service.domain.conversion import DEFAULT_VERSION
from service.domain.costs import Precision
from service.domain.errors import InvalidInput
from service.domain.file_check import FileCheck
from service.domain.layers import output_edge
from service.domain.settings import WeightGranularity
from service.inspection.calibration_cache import CacheEntry, write_cache
from workers.backends.onnx_reading import ReadModel, read_model
from workers.backends.protocol import OpenSettings
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_lint import lint_qdq
from workers.exports.qdq_onnx import QdqExport, QdqSettings, export_qdq
from workers.exports.to_cache import to_cache
from workers.models.fake_quant import scale_of
from workers.models.private_folder import private_folder
from workers.sweep import mixed_check
from workers.sweep.job import Job
from workers.sweep.mixed_check import Compared
from workers.sweep.outcome import File

MODEL, CACHE, CHECKS = "mixed.onnx", "calibration.cache", "mixed.json"


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
    with job.model_file() as path:
        read = read_model(path, OpenSettings(asked.fuse_bn, asked.weights, libraries=job.context.libraries))
    half = asked.fallback_precision is Precision.FP16
    settings = QdqSettings(per_channel=asked.weights is WeightGranularity.PER_CHANNEL, half_fallback=half)
    made = export_qdq(read.program, read.found, job.amax, fallback=fallback, settings=settings)
    with private_folder() as folder:
        written = write_onnx(folder / MODEL, made.model, made.weights)
        found = mixed_check.compare(job, folder / MODEL, frozenset(made.int8), asked.fallback_precision)
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
    """Of every layer that has ranges: which of them are int8 is told elsewhere.

    As they were measured: who builds from a cache gives the branches of a Concat one scale by itself.
    """
    without = frozenset(each.layer.id for each in read.found) - {each.id for each in job.active_layers()}
    measured = replace(settings, unify=False, half_fallback=False)
    whole: QdqExport = export_qdq(read.program, read.found, job.amax, fallback=without, settings=measured)
    found = to_cache(whole.model, whole.weights, version=DEFAULT_VERSION, algorithm=CacheAlgorithm.ENTROPY_2)
    present = found.cache.by_tensor
    added = tuple(each for each in _plugin_entries(job, read, without) if each.tensor not in present)
    return write_cache(replace(found.cache, entries=(*found.cache.entries, *added)))


def _plugin_entries(job: Job, read: ReadModel, without: frozenset[str]) -> Iterator[CacheEntry]:
    """An implicit build asks for the scale of a plugin's output wherever that goes; no pair stands at the graph's."""
    nodes = {node.name: node for node in read.program.skeleton.graph.node}
    for found in read.found:
        for index in found.outputs if found.layer.id not in without else ():
            amax = job.amax[output_edge(found.layer.id, index)]
            yield CacheEntry.of(nodes[found.node].output[index], float(scale_of(amax)))


def _checks(document: Mapping[str, Any]) -> File:
    return File(CHECKS, "application/json", (json.dumps(document, indent=1) + "\n").encode())
