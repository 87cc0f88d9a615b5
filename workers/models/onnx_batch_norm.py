"""Folds BatchNormalization nodes into the Conv, ConvTranspose or Gemm before them, in float64."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from workers.models.onnx_names import fresh_prefix
from workers.models.onnx_plugins import operator_of
from workers.models.onnx_walk import all_names, count_readers

Doubles = npt.NDArray[np.float64]


def fold_batch_norms(graph: onnx.GraphProto) -> int:
    """Fold in place; how many were. Where the weight is shared or the output read elsewhere too, the norm stays."""
    constants = {each.name: each for each in graph.initializer}
    readers = count_readers(graph)
    makers = {node.output[0]: node for node in graph.node}
    count = 0
    for norm in list(graph.node):
        maker = makers.get(norm.input[0]) if operator_of(norm) == "BatchNormalization" else None
        if maker is None or readers[maker.output[0]] != 1 or not _can_take(maker, norm, constants, readers):
            continue
        constants |= _fold(graph, maker, norm, constants)
        graph.node.remove(norm)
        makers[maker.output[0]] = maker
        count += 1
    return count


def _can_take(
    maker: onnx.NodeProto, norm: onnx.NodeProto, constants: dict[str, onnx.TensorProto], readers: Counter[str]
) -> bool:
    if operator_of(maker) not in {"Conv", "ConvTranspose", "Gemm"} or any(
        name not in constants for name in norm.input[1:]
    ):
        return False
    if len(norm.output) != 1 or any(each.name == "training_mode" and each.i for each in norm.attribute):
        return False
    if any(name not in constants or readers[name] != 1 for name in maker.input[1:] if name):
        return False
    if any(constants[name].data_type != onnx.TensorProto.FLOAT for name in (*maker.input[1:], *norm.input[1:]) if name):
        return False
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in maker.attribute}
    if operator_of(maker) == "ConvTranspose":
        return bool(attributes.get("group", 1) == 1)
    if operator_of(maker) == "Gemm":
        return bool(attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0)
    return True


def _fold(
    graph: onnx.GraphProto, maker: onnx.NodeProto, norm: onnx.NodeProto, constants: dict[str, onnx.TensorProto]
) -> dict[str, onnx.TensorProto]:
    """Fold one; the initializers that were added for it."""
    gamma, beta, mean, variance = (_value(constants[name]) for name in norm.input[1:5])
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in norm.attribute}
    factor = gamma / np.sqrt(variance + float(attributes.get("epsilon", 1e-5)))
    weight = constants[maker.input[1]]
    value = _value(weight)
    shape = [1] * value.ndim
    shape[_channel_axis(maker)] = -1
    has_bias = len(maker.input) > 2 and maker.input[2]
    bias = _value(constants[maker.input[2]]) if has_bias else np.zeros(len(factor))
    _store(weight, value * factor.reshape(shape))
    new_bias = (bias - mean) * factor + beta
    maker.output[0] = norm.output[0]
    if has_bias:
        _store(constants[maker.input[2]], new_bias)
        return {}
    name = fresh_prefix(all_names(graph), f"{weight.name}_folded_bias")
    added = graph.initializer.add()
    added.CopyFrom(numpy_helper.from_array(new_bias.astype(np.float32), name))
    del maker.input[2:]
    maker.input.append(name)
    return {name: added}


def _channel_axis(maker: onnx.NodeProto) -> int:
    if operator_of(maker) == "Gemm":
        transposed = any(each.name == "transB" and each.i for each in maker.attribute)
        return 0 if transposed else 1
    return 1 if operator_of(maker) == "ConvTranspose" else 0


def _value(tensor: onnx.TensorProto) -> Doubles:
    return np.asarray(numpy_helper.to_array(tensor), dtype=np.float64)


def _store(tensor: onnx.TensorProto, value: Doubles) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
