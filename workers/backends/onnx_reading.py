"""Reads an ONNX file's layers, for every backend that takes ONNX."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.domain.errors import RejectedFile
from service.domain.layers import SkippedOperation
from workers.backends.protocol import OpenSettings

if TYPE_CHECKING:
    from workers.models.onnx_graph import OnnxProgram
    from workers.models.onnx_layers import Found


@dataclass(frozen=True)
class ReadModel:
    """An ONNX file's graph, its layers in topological order, and what was not made a layer."""

    program: "OnnxProgram"
    found: Sequence["Found"]
    skipped: tuple[SkippedOperation, ...]


def read_model(path: Path, settings: OpenSettings) -> ReadModel:
    """Read the file and find its layers; raises RejectedFile where it cannot be used or has none."""
    from workers.models.onnx_graph import read_onnx
    from workers.models.onnx_layers import LayerFinder

    program = read_onnx(path, fuse_bn=settings.fuse_bn, libraries=settings.libraries.onnxruntime)
    finder = LayerFinder(program)
    found = finder.find()
    skipped = tuple(finder.skipped)
    if not found:
        why = f"; for example {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise RejectedFile(
            "the model has no quantizable layer (Conv, Gemm, MatMul, residual Add, AveragePool, plugin) in float32"
            f"{why}"
        )
    return ReadModel(program, found, skipped)
