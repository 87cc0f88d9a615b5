"""Reads an ONNX file into a light graph and its weights apart, so that variants of it are cheap to make."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
from onnx import numpy_helper

from service.domain.errors import RejectedFile, first_line
from service.domain.layers import TensorSpec
from service.inspection.content import is_zip, read_head
from service.inspection.formats import quoted
from workers.models.onnx_archive import external_tensors, location_of, refuse_undecodable, unpacked
from workers.models.onnx_batch_norm import fold_batch_norms
from workers.models.onnx_constants import constants_to_initializers
from workers.models.onnx_libraries import SETTING
from workers.models.onnx_names import name_nodes
from workers.models.onnx_plugin_types import declare_plugin_tensors
from workers.models.onnx_plugins import operator_of, plugins_of
from workers.models.onnx_size import refuse_too_many_nodes
from workers.models.onnx_walk import all_nodes, all_tensors, count_readers

Array = npt.NDArray[np.generic]

OLDEST_OPSET = 13  # per-channel QuantizeLinear came with it
QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
QUANTIZED_CODE = "model-quantized"
HALVES = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
FIRST_IR_WITH_CONSTANT_INITIALIZERS = 4
KNOWN_TYPES = set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
NUMERIC = "fiub"  # NumPy's own kinds of numbers; narrower ones stay in the graph
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


def read_onnx(path: Path, *, fuse_bn: bool, libraries: Sequence[Path] = ()) -> OnnxProgram:
    """Open the file; raises RejectedFile that says what is wrong.

    ``libraries``: custom-op libraries of ONNX Runtime, for operators outside the standard domains.
    """
    model = load_onnx(path)
    _fix_inputs(model)
    name_nodes(model.graph)
    _refuse(model, libraries)
    constants_to_initializers(model.graph)
    _refuse_halves(model.graph)
    folded = fold_batch_norms(model.graph) if fuse_bn else 0
    weights = _take_weights(model.graph)
    try:
        skeleton = _with_shapes(model, weights, libraries)
    except onnx.shape_inference.InferenceError as error:
        raise RejectedFile(
            f"the shapes of the ONNX graph do not fit together: {first_line(error, most=300)}"
        ) from error
    inputs = tuple(_spec(each, "input") for each in skeleton.graph.input)
    outputs = tuple(_spec(each, "output") for each in skeleton.graph.output)
    if not inputs or not outputs:
        raise RejectedFile("the ONNX graph has no input or no output")
    return OnnxProgram(skeleton, weights, inputs, outputs, _batch_size(inputs), folded)


def _with_shapes(model: onnx.ModelProto, weights: dict[str, Array], libraries: Sequence[Path]) -> onnx.ModelProto:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    if not any(plugins_of(inferred.graph)):
        return inferred
    declare_plugin_tensors(inferred, weights, libraries)
    return onnx.shape_inference.infer_shapes(inferred, data_prop=True)  # what follows the plugins


def load_onnx(path: Path) -> onnx.ModelProto:
    """The checked model of an upload, its external data read; raises RejectedFile that says what is wrong."""
    if is_zip(read_head(path)):
        with unpacked(path) as file:
            return _checked(_parse(file), file)
    model = _parse(path)
    refuse_too_many_nodes(model)
    refuse_undecodable(model)
    external = next(external_tensors(model), None)
    if external is not None:  # whatever lies beside an upload belongs to somebody else
        raise RejectedFile(
            f"the weights are in another file ({quoted(location_of(external))}), which was not uploaded; send a zip of "
            "the .onnx file and that one, or save the model with embedded weights"
        )
    return _checked(model, path)


def _parse(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path), load_external_data=False, format="protobuf")
    except Exception as error:  # protobuf and onnx raise what they like on a broken file
        raise RejectedFile(f"this is not an ONNX model: {first_line(error, most=300)}") from error


def _checked(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model with its functions inlined and its external data read; raises RejectedFile where it is not valid."""
    try:
        onnx.checker.check_model(str(path))
        if model.functions:
            # before the weights are read: the inliner cannot take more than 2 GB
            model = onnx.inliner.inline_local_functions(model)
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # the checker's own error types and OS errors of external data
        reason = first_line(error, most=300).replace(f"{path.parent}{os.sep}", "")
        raise RejectedFile(f"the ONNX checker refuses the model: {reason}") from error
    for tensor in all_tensors(model):
        _check_length(tensor)
    return model


def _check_length(tensor: onnx.TensorProto) -> None:
    """The checker sees too little inline data, but neither too much nor what is wrong with external data."""
    try:
        numpy_helper.to_array(tensor)
    except KeyError as error:
        message = f"tensor {quoted(tensor.name)} has the data type {tensor.data_type}, which ONNX does not know"
        raise RejectedFile(message) from error
    except (ValueError, TypeError) as error:
        raise RejectedFile(
            f"tensor {quoted(tensor.name)} has the shape {tuple(tensor.dims)}, but its data do not fill it "
            f"exactly: {first_line(error, most=300)}"
        ) from error


def _refuse(model: onnx.ModelProto, libraries: Sequence[Path]) -> None:
    opset = next((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), 0)
    if opset < OLDEST_OPSET:
        raise RejectedFile(f"the model uses ONNX opset {opset}; {OLDEST_OPSET} or later is needed: export it again")
    plugin = next(plugins_of(model.graph), None)
    if plugin is not None and not libraries:
        raise RejectedFile(
            f"operator {operator_of(plugin)} (node {quoted(plugin.name)}) is in none of the standard domains; the "
            f"operator of this service can install its library on the workers and name it in {SETTING}"
        )
    for node in all_nodes(model.graph):
        if node.op_type in QUANTIZED or node.op_type.startswith("QLinear"):
            raise RejectedFile(
                f"the model is quantized already (node {node.name!r}, {node.op_type}); upload the fp32 one",
                code=QUANTIZED_CODE,
            )


def _refuse_halves(graph: onnx.GraphProto) -> None:
    for each in graph.initializer:
        if each.data_type in HALVES and each.dims:
            kind = onnx.TensorProto.DataType.Name(each.data_type).lower()
            raise RejectedFile(
                f"the weights are {kind} (for example {each.name}); int8 is measured against the fp32 model"
            )


def _fix_inputs(model: onnx.ModelProto) -> None:
    """Initializers are not inputs: before IR version 4 they had to be listed as such."""
    initializers = {each.name for each in model.graph.initializer}
    kept = [each for each in model.graph.input if each.name not in initializers]
    if len(kept) != len(model.graph.input):
        copies = [onnx.ValueInfoProto.FromString(each.SerializeToString()) for each in kept]
        del model.graph.input[:]
        model.graph.input.extend(copies)
    model.ir_version = max(model.ir_version, FIRST_IR_WITH_CONSTANT_INITIALIZERS)


def _take_weights(graph: onnx.GraphProto) -> dict[str, Array]:
    """Move large initializers out of the graph; they stay declared as external data."""
    weights: dict[str, Array] = {}
    for each in graph.initializer:
        value = numpy_helper.to_array(each)
        if value.nbytes >= LARGE_BYTES and value.dtype.kind in NUMERIC:
            weights[each.name] = value
            declare_external(each)
    return weights


def declare_external(tensor: onnx.TensorProto) -> None:
    """Keep name, type and shape; drop the data, which the session is given apart."""
    kept = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    kept.data_location = onnx.TensorProto.EXTERNAL
    kept.external_data.add(key="location", value="held-in-memory")
    tensor.CopyFrom(kept)


def with_outputs(skeleton: onnx.ModelProto, tensors: list[str]) -> onnx.ModelProto:
    """A copy of the graph that gives these tensors out too."""
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    present = {each.name for each in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)
    return model


def without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without the initializers that nothing reads: the model itself, or a copy."""
    readers = count_readers(model.graph)
    if all(each.name in readers for each in model.graph.initializer):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(each for each in model.graph.initializer if each.name in readers)
    return copy


def _spec(value: onnx.ValueInfoProto, role: str) -> TensorSpec:
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or kind.elem_type not in KNOWN_TYPES:
        raise RejectedFile(f"{role} {value.name!r} is not a tensor of a known type; only tensors can be measured")
    shape = tuple(each.dim_value if each.HasField("dim_value") else (each.dim_param or None) for each in kind.shape.dim)
    dtype = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)))
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)


def _batch_size(inputs: tuple[TensorSpec, ...]) -> int | None:
    fixed = {each.shape[0] for each in inputs if each.shape and isinstance(each.shape[0], int)}
    return next(iter(fixed)) if len(fixed) == 1 else None
