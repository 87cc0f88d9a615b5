"""Lint rules that look at an operation and what it reads and makes."""

from collections.abc import Iterator

import onnx

from workers.exports.lint_rules import Finding, Rule
from workers.exports.pairs import QdqGraph, Quantizer
from workers.models.onnx_plugins import is_plugin

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
ACTIVATION_NAMES = "Relu LeakyRelu PRelu Elu Selu Clip Sigmoid HardSigmoid HardSwish Tanh Gelu Mish Softplus Swish"
ACTIVATIONS = frozenset(ACTIVATION_NAMES.split())
FLOAT_NAMES = (
    "Softmax LogSoftmax LayerNormalization RMSNormalization InstanceNormalization GroupNormalization "
    "BatchNormalization Reshape Transpose Flatten Squeeze Unsqueeze Gather Slice Split Identity Erf Exp Sqrt Pow"
)
FLOAT_ONLY = ACTIVATIONS | frozenset(FLOAT_NAMES.split())
"""Operations that gain nothing from int8 input; a quantizer moves over the layout ones by itself."""


def lint_layers(graph: QdqGraph) -> Iterator[Finding]:
    """Everything that is wrong with where the pairs stand."""
    for node in graph.graph.node:
        if is_plugin(node):
            yield from _plugin(graph, node)
        elif node.op_type in WEIGHTED:
            yield from _weighted(graph, node)
        elif node.op_type == "Add":
            yield from _addition(graph, node)
        elif node.op_type in FLOAT_ONLY:
            yield from _float_only(graph, node)
    for name in sorted(graph.given_out):
        if name in graph.dequantizes:
            why = f"the graph's output {name} comes out of a pair"
            yield Finding(Rule.OUTPUT_PAIR, graph.dequantizes[name].node.name, name, why)
        elif name in graph.quantizes:
            why = f"the graph's output {name} is quantized"
            yield Finding(Rule.OUTPUT_PAIR, graph.quantizes[name].node.name, name, why)


def _weighted(graph: QdqGraph, node: onnx.NodeProto) -> Iterator[Finding]:
    quantized = [name in graph.dequantizes for name in node.input[:2]]
    if any(quantized) and not all(quantized):
        plain = node.input[quantized.index(False)]
        yield Finding(Rule.HALF_QUANTIZED, node.name, plain, f"its input {plain} is floating point, the other is int8")
    for index, name in enumerate(node.input[:2]):
        dequantize = graph.dequantizes.get(name)
        if dequantize is not None and graph.weight_like(dequantize):
            yield from _weight(graph, node, index, dequantize)
    if len(node.input) > 2 and node.input[2] in graph.dequantizes:
        yield Finding(Rule.QUANTIZED_BIAS, node.name, node.input[2], f"its bias {node.input[2]} is dequantized")


def _weight(graph: QdqGraph, node: onnx.NodeProto, index: int, dequantize: Quantizer) -> Iterator[Finding]:
    quantize = graph.quantizes.get(dequantize.source)
    source = dequantize.source if quantize is None else quantize.source
    if quantize is not None:
        yield Finding(Rule.FLOAT_WEIGHT, node.name, source, "the weight is quantized in the graph")
    value = graph.constants.value(source)
    assert value is not None
    axes = _channel_axes(node, index, value.ndim)
    channels = max((value.shape[axis] for axis in axes), default=1)
    if dequantize.scale is None or channels == 1:
        return
    if dequantize.axis is None:
        why = f"one scale for {channels} output channels"
        yield Finding(Rule.PER_TENSOR_WEIGHT, node.name, source, why)
    elif dequantize.axis % value.ndim not in axes:
        why = f"its scales lie along axis {dequantize.axis}; the output channels are axis {min(axes)}"
        yield Finding(Rule.WEIGHT_AXIS, node.name, source, why)


def _channel_axes(node: onnx.NodeProto, index: int, ndim: int) -> set[int]:
    """The axes along which scales may lie; none where one scale for all is all there can be."""
    attributes = {each.name: each.i for each in node.attribute}
    if node.op_type == "MatMul":
        return {ndim - 1 if index == 1 else ndim - 2} if ndim > 1 else set()
    if node.op_type == "Gemm":
        return {0 if attributes.get("transB", 0) else 1}
    if node.op_type == "ConvTranspose":
        # tools disagree; with groups, output channels repeat along axis 1 and have no scale each
        return {0, 1} if attributes.get("group", 1) == 1 else set()
    return {0}


def _addition(graph: QdqGraph, node: onnx.NodeProto) -> Iterator[Finding]:
    quantizers = [graph.quantized_source(name) for name in node.input]
    if not all(quantizers):
        return
    for each in quantizers:
        assert each is not None
        maker = _weighted_maker(graph, each.source)
        if maker is not None:
            why = f"{each.source} comes from {maker.name} alone, and could stay in its accumulator"
            yield Finding(Rule.BOTH_BRANCHES, node.name, each.source, why)
            return


def _weighted_maker(graph: QdqGraph, tensor: str) -> onnx.NodeProto | None:
    """The weighted operation that makes the tensor, directly or by a batch norm or bias, for one reader only."""
    maker = graph.makers.get(tensor)
    while maker is not None and len(graph.readers.get(maker.output[0], [])) == 1:
        if maker.op_type in WEIGHTED:
            return maker
        free = [name for name in maker.input if name not in graph.constants]
        if maker.op_type not in {"BatchNormalization", "Add"} or len(free) != 1:
            return None
        maker = graph.makers.get(free[0])
    return None


def _float_only(graph: QdqGraph, node: onnx.NodeProto) -> Iterator[Finding]:
    dequantize = graph.dequantizes.get(node.input[0])
    quantize = graph.quantized_source(node.input[0])
    if dequantize is None or quantize is None or graph.weight_like(dequantize):
        return
    maker = graph.makers.get(quantize.source)
    if maker is not None and maker.op_type in WEIGHTED and node.op_type in ACTIVATIONS | {"BatchNormalization"}:
        why = f"a pair stands between {maker.name} and this {node.op_type}"
        yield Finding(Rule.SPLIT_FUSION, node.name, quantize.source, why)
    elif maker is None or not is_plugin(maker):  # the pair behind a plugin belongs to it
        yield Finding(Rule.NEEDLESS_PAIR, node.name, quantize.source, f"a {node.op_type} reads a quantized tensor")


def _plugin(graph: QdqGraph, node: onnx.NodeProto) -> Iterator[Finding]:
    if not any(graph.quantized_source(name) for name in node.input):
        return
    for name in node.output:
        readers = graph.readers.get(name, [])
        if readers and not all(each.op_type == "QuantizeLinear" for each, _ in readers):
            yield Finding(Rule.PLUGIN_OUTPUT, node.name, name, "its input is quantized, its output is not")
