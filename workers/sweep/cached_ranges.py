"""Phase 2 without samples: the ranges of a calibration cache, found under the names of the graph's tensors."""

from service.domain.errors import InvalidInput, SweepFailure
from service.inspection.calibration_cache import read_cache
from service.store.tables import CalibrationRow
from workers.backends.onnx_reading import read_model
from workers.backends.protocol import OpenSettings
from workers.exports.from_cache import cache_ranges, folded_names
from workers.exports.model_file import original_graph
from workers.sweep.job import Job
from workers.sweep.outcome import Warnings


def cached_ranges(job: Job, cache: CalibrationRow) -> tuple[dict[str, float], dict[str, str]]:
    """Activation edge → amax, and layer id → why it cannot be int8: a tensor that it reads has no usable scale.

    Raises SweepFailure where that is every layer, since the cache is then most likely of another model.
    """
    settings = OpenSettings(job.settings.fuse_bn, job.settings.weights, libraries=job.context.libraries)
    with job.context.blobs.local(job.model.sha256) as path:
        read, original = read_model(path, settings), original_graph(path)
    wanted = {each.id for each in job.plan.active({})}
    layers = [each for each in read.found if each.layer.id in wanted]
    if not layers:
        return {}, {}
    try:
        held = read_cache(job.context.blobs.read(cache.sha256))
        found = cache_ranges(read.program, layers, held, aliases=folded_names(original))
    except InvalidInput as error:
        raise SweepFailure(error.message, code="no-layers") from error
    return dict(found.amax), {each.layer: each.reason for each in found.left_float}


def cache_warnings(failed: dict[str, str], layers: int) -> Warnings:
    """Says so where the cache does not have the scales of all ``layers`` that were to be measured."""
    if not failed:
        return []
    message = (
        f"the calibration cache lacks a usable scale for {len(failed)} of {layers} layers, which stay in floating "
        f"point; for example {next(iter(failed.values()))}"
    )
    return [{"code": "cache-incomplete", "message": message}]
