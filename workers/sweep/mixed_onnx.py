"""The decision as a graph that deploys: made, checked, linted, and run beside the variant that the sweep measured."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.domain.caches import CacheAlgorithm
from service.domain.conversion import DEFAULT_VERSION
from service.domain.errors import InvalidInput, first_line
from service.domain.layers import Variant, output_edge
from service.domain.settings import WeightGranularity
from service.inspection.calibration_cache import CacheEntry, write_cache
from workers.backends.onnx_reading import ReadModel, read_model
from workers.backends.protocol import Array, OpenSettings
from workers.data.binding import Batch
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_lint import lint_qdq
from workers.exports.qdq_onnx import QdqExport, QdqSettings, export_qdq
from workers.exports.to_cache import to_cache
from workers.models.fake_quant import scale_of
from workers.sweep.job import Job
from workers.sweep.outcome import File

MODEL, CACHE, CHECKS = "mixed.onnx", "calibration.cache", "mixed.json"
COMPARED_SAMPLES = 32


def files(job: Job, fallback: frozenset[str]) -> tuple[File, ...]:
    """The graph (with its data beside it where it is larger than 2 GiB), the scales of all layers, and the checks.

    Where the graph cannot be made the checks say why, and stand alone.
    """
    try:
        return _made(job, fallback)
    except InvalidInput as error:
        return (_checks({"made": False, "reason": error.message}),)


def _made(job: Job, fallback: frozenset[str]) -> tuple[File, ...]:
    asked = job.settings
    read = read_model(job.context.blobs.path(job.model.sha256), _open_settings(job))
    settings = QdqSettings(per_channel=asked.weights is WeightGranularity.PER_CHANNEL)
    made = export_qdq(read.program, read.found, job.amax, fallback=fallback, settings=settings)
    with tempfile.TemporaryDirectory(prefix="quantsieve-") as folder:
        written = write_onnx(Path(folder) / MODEL, made.model, made.weights)
        differences = _compared(job, Path(folder) / MODEL, frozenset(made.int8))
        graphs = tuple(File(each.name, "application/octet-stream", each.read_bytes()) for each in written)
    checks = {
        "made": True,
        "int8": list(made.int8),
        "rescaled": [asdict(each) for each in made.rescaled],
        "lint": [asdict(each) | {"cost": each.cost} for each in lint_qdq(made.model, made.weights)],
        **differences,
    }
    return (*graphs, File(CACHE, "text/plain; charset=utf-8", _cache(job, read, settings)), _checks(checks))


def _open_settings(job: Job) -> OpenSettings:
    return OpenSettings(job.settings.fuse_bn, job.settings.weights, libraries=job.context.libraries)


def _cache(job: Job, read: ReadModel, settings: QdqSettings) -> bytes:
    """Of every layer that has ranges: which of them are int8 is told elsewhere.

    As they were measured: who builds from a cache gives the branches of a Concat one scale by itself.
    """
    without = frozenset(each.layer.id for each in read.found) - {each.id for each in job.active_layers()}
    measured = replace(settings, unify=False)
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


def _compared(job: Job, path: Path, int8: frozenset[str]) -> dict[str, Any]:
    """How far the file's outputs in ONNX Runtime lie from the measured variant's, relative root mean square.

    ``simulated``: Q/DQ run as they stand, the arithmetic that was measured. ``fused``: as the runtime runs the file by
    itself, with integer kernels where it has them.
    """
    indices = job.plan.order()[:COMPARED_SAMPLES]
    batch = next(iter(job.open_dataset().batches(indices, job.plan.batch_size)))
    model = job.open_model()
    model.set_amax(job.amax)
    (done,) = model.evaluate([batch.inputs], [Variant(name="mixed", int8=int8)])
    if done.outputs is None:
        return {"compared": None, "reason": done.failure}
    found: dict[str, Any] = {}
    for name, fused in (("simulated", False), ("fused", True)):
        try:
            outputs = _run(job, path, batch, fused=fused)
        except Exception as error:  # the runtime raises classes of its own
            found[name] = f"ONNX Runtime cannot run it: {first_line(error)}"
            continue
        found[name] = {each: _distance(outputs[each], np.asarray(value)) for each, value in done.outputs.items()}
    return {"compared": {"samples": len(batch.indices), **found}}


def _run(job: Job, path: Path, batch: Batch, *, fused: bool) -> Mapping[str, Array]:
    import onnxruntime

    from workers.engine.fixed_batch import filled
    from workers.models.onnx_libraries import register

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if job.open_model().facts.libraries:
        register(options, job.context.libraries.onnxruntime)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fixed = {each.name: each.shape[0] for each in session.get_inputs() if each.shape}
    feeds = {
        name: filled(each, job.plan.batch_size if isinstance(fixed.get(name), int) else None)
        for name, each in batch.inputs.items()
        if name in fixed
    }
    names = [each.name for each in session.get_outputs()]
    return {name: np.asarray(each) for name, each in zip(names, session.run(names, feeds), strict=True)}


def _distance(found: Array, expected: Array) -> float:
    wanted = expected.astype(np.float64)
    noise = float(np.square(found[: len(wanted)].astype(np.float64) - wanted).mean())
    signal = float(np.square(wanted).mean())
    return float(np.sqrt(noise / signal)) if signal else float(np.sqrt(noise))


def _checks(document: Mapping[str, Any]) -> File:
    return File(CHECKS, "application/json", (json.dumps(document, indent=1) + "\n").encode())
