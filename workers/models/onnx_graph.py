"""Reads an ONNX file into a light graph and its weights apart, so that variants of it are cheap to make."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
from onnx import numpy_helper

from service.domain.errors import RejectedFile
from service.domain.layers import TensorSpec
from workers.models.onnx_batch_norm import fold_batch_norms

Array = npt.NDArray[np.generic]

OLDEST_OPSET = 13  # per-channel QuantizeLinear came with it
KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
LARGE_BYTES = 1024  # initializers from this size on live outside the graph


@dataclass
class OnnxProgram:
    """``skeleton``: the graph with its large initializers declared but not held; ``weights``: their values."""

    skeleton: onnx.ModelProto
    weights: dict[str, Array]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_size: int | None
    folded_batch_norms: int


def read_onnx(path: Path, *, fuse_bn: bool) -> OnnxProgram:
    """Open the file; raises RejectedFile that says what is wrong."""
    model = _load(path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _refuse(model)
    _name_nodes(model.graph)
    folded = fold_batch_norms(model.graph) if fuse_bn else 0
    weights = _take_weights(model.graph)
    try:
        skeleton = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise RejectedFile(f"the shapes of the ONNX graph do not fit together: {_first_line(error)}") from error
    initializers = {each.name for each in skeleton.graph.initializer}
    inputs = tuple(_spec(each) for each in skeleton.graph.input if each.name not in initializers)
    outputs = tuple(_spec(each) for each in skeleton.graph.output)
    if not inputs or not outputs:
        raise RejectedFile("the ONNX graph has no input or no output")
    return OnnxProgram(skeleton, weights, inputs, outputs, _batch_size(inputs), folded)


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False, format="protobuf")
    except Exception as error:  # protobuf and onnx raise what they like on a broken file
        raise RejectedFile(f"this is not an ONNX model: {_first_line(error)}") from error
    external = [each for each in model.graph.initializer if each.data_location == onnx.TensorProto.EXTERNAL]
    try:
        onnx.checker.check_model(str(path))
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except FileNotFoundError as error:
        raise RejectedFile(_missing_data(external)) from error
    except Exception as error:  # the checker's own error types and OS errors of external data
        if external and "doesn't exist" in str(error):
            raise RejectedFile(_missing_data(external)) from error
        raise RejectedFile(f"the ONNX checker refuses the model: {_first_line(error)}") from error
    return model


def _missing_data(external: list[onnx.TensorProto]) -> str:
    place = next((entry.value for each in external for entry in each.external_data if entry.key == "location"), "?")
    return f"the weights are in another file ({place}), which was not uploaded; save the model with embedded weights"


def _refuse(model: onnx.ModelProto) -> None:
    opset = next((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), 0)
    if opset < OLDEST_OPSET:
        raise RejectedFile(f"the model uses ONNX opset {opset}; {OLDEST_OPSET} or later is needed: export it again")
    for node in model.graph.node:
        if node.domain not in KNOWN_DOMAINS:
            raise RejectedFile(f"operator {node.domain}::{node.op_type} (node {node.name!r}) is not a standard one")
        if node.op_type in {"QuantizeLinear", "QLinearConv", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}:
            raise RejectedFile(
                f"the model is quantized already (node {node.name!r}, {node.op_type}); upload the fp32 one"
            )
    halves = [each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT16]
    if halves:
        raise RejectedFile(
            f"the weights are float16 (for example {halves[0]}); int8 is measured against the fp32 model"
        )


def _name_nodes(graph: onnx.GraphProto) -> None:
    seen: Counter[str] = Counter(node.name for node in graph.node)
    for index, node in enumerate(graph.node):
        if not node.name or seen[node.name] > 1:
            node.name = f"{node.op_type}_{index}"


def _take_weights(graph: onnx.GraphProto) -> dict[str, Array]:
    """Move large constants out of the graph (Constant nodes too); they stay declared as external data."""
    for node in list(graph.node):
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            graph.node.remove(node)
    weights: dict[str, Array] = {}
    for each in graph.initializer:
        value = numpy_helper.to_array(each)
        if value.nbytes >= LARGE_BYTES:
            weights[each.name] = value
            declare_external(each)
    return weights


def declare_external(tensor: onnx.TensorProto) -> None:
    """Keep name, type and shape; drop the data, which the session is given apart."""
    kept = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    kept.data_location = onnx.TensorProto.EXTERNAL
    kept.external_data.add(key="location", value="held-in-memory")
    tensor.CopyFrom(kept)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(each.dim_value if each.HasField("dim_value") else (each.dim_param or None) for each in kind.shape.dim)
    dtype = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)))
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)


def _batch_size(inputs: tuple[TensorSpec, ...]) -> int | None:
    sizes = {each.shape[0] for each in inputs if each.shape}
    fixed = [size for size in sizes if isinstance(size, int)]
    return fixed[0] if len(sizes) == 1 and fixed else None


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
