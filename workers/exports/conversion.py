"""A model file and a calibration cache to Q/DQ: the way of the command line and of the service."""

from collections.abc import Sequence
from pathlib import Path

from service.inspection.calibration_cache import CalibrationCache
from workers.exports.from_cache import FromCache, folded_names, from_cache
from workers.exports.model_file import original_graph
from workers.exports.qdq_onnx import QdqSettings
from workers.models.onnx_graph import read_onnx
from workers.models.onnx_layers import LayerFinder


def to_qdq(path: Path, cache: CalibrationCache, settings: QdqSettings, *, libraries: Sequence[Path] = ()) -> FromCache:
    """The float32 ONNX file (or a zip of one) with the scales of its cache; raises InvalidInput as ``from_cache``.

    ``libraries``: custom-op libraries of ONNX Runtime, for operators outside the standard domains.
    """
    program = read_onnx(path, fuse_bn=True, libraries=libraries)
    aliases = folded_names(original_graph(path))
    return from_cache(program, LayerFinder(program).find(), cache, aliases=aliases, settings=settings)
