"""Small graphs, exported and run."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_onnx import QdqExport
from workers.models.onnx_graph import OnnxProgram, read_onnx
from workers.models.onnx_layers import Found, LayerFinder

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'


def saved(folder: Path, body: str, name: str = "m.onnx") -> Path:
    path = folder / name
    onnx.save(onnx.parser.parse_model(HEAD + body), path)
    return path


def opened(path: Path) -> tuple[OnnxProgram, list[Found]]:
    program = read_onnx(path, fuse_bn=True)
    return program, LayerFinder(program).find()


def ranges(found: list[Found], amax: float = 2.0) -> dict[str, float]:
    return {edge: amax for each in found for edge in each.layer.activations}


def written(folder: Path, export: QdqExport) -> onnx.ModelProto:
    (path,) = write_onnx(folder / "mixed.onnx", export.model, export.weights)
    return onnx.load(path)


def run(model: Path | onnx.ModelProto, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs, each Q and DQ computed as it stands."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def readers(model: onnx.ModelProto) -> Mapping[str, list[str]]:
    """What each node reads, by its name; constants as ``*``."""
    constants = {each.name for each in model.graph.initializer}
    return {node.name: ["*" if name in constants else name for name in node.input] for node in model.graph.node}


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]
