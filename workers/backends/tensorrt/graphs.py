"""What TensorRT is given of a variant: ONNX bytes with their weights, and what stands beside them for implicit int8."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from service.domain.layers import output_edge
from workers.backends.tensorrt.seam import EngineFailure, ImplicitInt8
from workers.models.fake_quant import quantize
from workers.models.onnx_graph import OnnxProgram, without_unused
from workers.models.onnx_layers import Found
from workers.models.onnx_plugins import operator_of
from workers.models.onnx_qdq import insert_qdq
from workers.models.onnx_walk import count_readers

FUSED = {"BatchNormalization", "Relu", "Clip", "LeakyRelu"}
"""What TensorRT fuses into the Conv or MatMul before it."""


def explicit_model(
    program: OnnxProgram, layers: Sequence[Found], amax: Mapping[str, float], *, per_channel: bool
) -> bytes:
    """The graph with these layers in int8: Q/DQ on their activations, int8 weights followed by a DQ."""
    made = insert_qdq(program.skeleton, layers, amax)
    found = {each.layer.id: each for each in layers}
    model = onnx.ModelProto()
    model.CopyFrom(made.model)
    nodes = list(model.graph.node)
    kept = [each for each in model.graph.initializer if each.name not in made.weights]
    pairs = [_int8_weight(name, found[layer], per_channel=per_channel) for name, layer in made.weights.items()]
    _replace(model.graph, [node for node, _ in pairs] + nodes, kept + [each for _, values in pairs for each in values])
    return serialized(model, program)


def serialized(model: onnx.ModelProto, program: OnnxProgram) -> bytes:
    """The bytes of a model that declares the program's weights, with them in it; raises EngineFailure past 2 GB."""
    complete = onnx.ModelProto()
    complete.CopyFrom(without_unused(model))
    for each in complete.graph.initializer:
        if each.name in program.weights:
            each.CopyFrom(numpy_helper.from_array(program.weights[each.name], each.name))
    try:
        return bytes(complete.SerializeToString())
    except Exception as error:  # protobuf's own error types differ between its implementations
        raise EngineFailure(f"build failed: the graph does not fit in the 2 GB of one ONNX file: {error}") from error


def implicit_int8(
    program: OnnxProgram, every: Sequence[Found], int8: Iterable[str], amax: Mapping[str, float]
) -> ImplicitInt8:
    """What TensorRT 10 is told beside the fp32 graph for these layers (ids) to be in int8.

    The outputs of int8 layers are asked for in float32, so the range of one that no layer reads only has to exist for
    TensorRT to consider int8 at all: it is given that of the layer's input. A plugin's outputs have their own.
    """
    nodes = {node.name: node for node in program.skeleton.graph.node}
    known = {
        nodes[each.node].input[index]: amax[f"{each.layer.id}:{index}"]
        for each in every
        for index in each.operands
        if f"{each.layer.id}:{index}" in amax
    }
    wanted = set(int8)
    chosen = [each for each in every if each.layer.id in wanted]
    ranges: dict[str, float] = {}
    for each in chosen:
        inputs = {nodes[each.node].input[index]: amax[f"{each.layer.id}:{index}"] for index in each.operands}
        largest = max(inputs.values())
        ranges |= inputs
        ranges |= {nodes[each.node].output[index]: amax[output_edge(each.layer.id, index)] for index in each.outputs}
        for name in _outputs_of_group(program.skeleton.graph, nodes[each.node]):
            ranges.setdefault(name, known.get(name, largest))
    return ImplicitInt8(frozenset(each.node for each in chosen), ranges)


def _outputs_of_group(graph: onnx.GraphProto, node: onnx.NodeProto) -> list[str]:
    """The output of a node, and those of the nodes that are fused behind it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for each in graph.node:
        for name in each.input:
            readers.setdefault(name, []).append(each)
    counts = count_readers(graph)
    outputs = [str(node.output[0])]
    while counts[outputs[-1]] == 1:
        following = readers.get(outputs[-1], [])
        if len(following) != 1 or operator_of(following[0]) not in FUSED:
            break
        outputs.append(str(following[0].output[0]))
    return outputs


def _int8_weight(name: str, found: Found, *, per_channel: bool) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    """The DequantizeLinear that gives tensor ``name``, and its initializers."""
    assert found.weight is not None
    _, value, axis = found.weight
    levels, scale = quantize(value.astype(np.float32), axis if per_channel else None)
    by_channel = per_channel and axis is not None
    attributes = {"axis": axis % value.ndim} if by_channel and axis is not None else {}
    scale = scale.reshape(-1 if by_channel else ())  # (output channels,) or ()
    values = [
        numpy_helper.from_array(levels, f"{name}_int8"),
        numpy_helper.from_array(scale, f"{name}_scale"),
        numpy_helper.from_array(np.zeros(scale.shape, dtype=np.int8), f"{name}_zero"),
    ]
    inputs = [each.name for each in values]
    node = onnx.helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}_DequantizeLinear", **attributes)
    return node, values


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> None:
    # copies: deleting from a repeated field invalidates what was taken from it
    made = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
    values = [onnx.TensorProto.FromString(each.SerializeToString()) for each in initializers]
    del graph.node[:]
    del graph.initializer[:]
    graph.node.extend(made)
    graph.initializer.extend(values)
