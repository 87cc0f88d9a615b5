"""Takes a Q/DQ graph apart into a float32 graph and a calibration cache, as TensorRT <= 10 builds implicit int8."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from service.domain.caches import CacheAlgorithm
from service.domain.errors import InvalidInput
from service.inspection.calibration_cache import CacheEntry, CalibrationCache
from service.inspection.formats import quoted
from workers.exports.onnx_steps import live_nodes, reads_of
from workers.exports.pairs import QdqGraph, Quantizer
from workers.models.onnx_graph import declare_external, without_unused
from workers.models.onnx_walk import inner_graphs

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class SeveralScales:
    """A tensor that the graph quantizes with several scales; the cache has room for the largest, ``kept``."""

    tensor: str
    kept: float
    dropped: tuple[float, ...]


@dataclass(frozen=True)
class ToCache:
    """The float32 graph, its large weights apart, and the activation scales.

    Weights keep the values that their int8 levels stand for. Scales of weights have no place in a cache.
    """

    model: onnx.ModelProto
    weights: Mapping[str, Array]
    cache: CalibrationCache
    several_scales: tuple[SeveralScales, ...]


def to_cache(
    model: onnx.ModelProto, weights: Mapping[str, Array], *, version: str, algorithm: CacheAlgorithm
) -> ToCache:
    """Every pair removed, its scale put into the cache under the tensor's name.

    Raises InvalidInput where the graph has no pair, or one that a cache cannot say: a zero point other than 0, a scale
    for each channel of an activation, a scale that is not constant.
    """
    graph = QdqGraph(model, weights)
    scales: dict[str, list[float]] = {}
    gone: dict[str, str] = {}  # dequantized activation → the tensor itself
    values: dict[str, Array] = {}
    for dequantize in graph.dequantizes.values():
        quantize = graph.quantizes.get(dequantize.source)
        if graph.weight_like(dequantize):
            values[dequantize.result] = _constant(graph, dequantize)
            continue
        if quantize is None:
            raise InvalidInput(f"{quoted(dequantize.node.name)} dequantizes a tensor that no QuantizeLinear made")
        scales.setdefault(_real(gone, quantize.source), []).append(_scale(quantize, dequantize))
        gone[dequantize.result] = quantize.source
    if not scales:
        raise InvalidInput("the model has no Q/DQ pair on an activation, so there are no scales to write")
    entries = tuple(CacheEntry.of(tensor, max(each)) for tensor, each in scales.items())
    several = tuple(
        SeveralScales(tensor, max(each), tuple(sorted(set(each) - {max(each)})))
        for tensor, each in scales.items()
        if len(set(each)) > 1
    )
    plain = _without_pairs(model, gone, values)
    present = {each.name for each in plain.graph.initializer}
    kept = {name: value for name, value in (dict(weights) | values).items() if name in present}
    return ToCache(plain, kept, CalibrationCache(version, algorithm, entries), several)


def _real(gone: Mapping[str, str], tensor: str) -> str:
    """The tensor before the pairs that come one after another."""
    while tensor in gone:
        tensor = gone[tensor]
    return tensor


def _scale(quantize: Quantizer, dequantize: Quantizer) -> float:
    name = quoted(quantize.node.name)
    if quantize.scale is None or dequantize.scale is None:
        raise InvalidInput(f"the scale of {name} is not constant; a cache holds constants only")
    if quantize.scale.size != 1:
        raise InvalidInput(f"{name} has {quantize.scale.size} scales for an activation; a cache holds one for a tensor")
    for each in (quantize, dequantize):
        if each.kind != "int8" or (each.zero is not None and np.any(each.zero != 0)):
            raise InvalidInput(f"{quoted(each.node.name)} is not symmetric int8 with zero point 0, as a cache means it")
    if not quantize.same_scale(dequantize):
        raise InvalidInput(f"{name} and {quoted(dequantize.node.name)} have different scales, so they are no pair")
    return float(quantize.scale.reshape(()))


def _constant(graph: QdqGraph, dequantize: Quantizer) -> Array:
    """The float32 values of a weight; those before quantization where the graph holds them."""
    quantize = graph.quantizes.get(dequantize.source)
    if quantize is not None:
        value = graph.constants.value(quantize.source)
        assert value is not None
        return value
    levels = graph.constants.value(dequantize.source)
    assert levels is not None
    if dequantize.scale is None:
        raise InvalidInput(f"the scale of {quoted(dequantize.node.name)} is not constant")
    shape = [1] * levels.ndim  # scales along one axis, all others broadcast
    if dequantize.axis is not None:
        shape[dequantize.axis] = -1
    scale = dequantize.scale.astype(np.float32).reshape(shape)
    zero = np.zeros(1, dtype=np.int64) if dequantize.zero is None else dequantize.zero.astype(np.int64)
    zero = zero.reshape(shape if zero.size > 1 else ())
    return np.asarray((levels.astype(np.int64) - zero).astype(np.float32) * scale, dtype=np.float32)


def _without_pairs(model: onnx.ModelProto, gone: Mapping[str, str], values: Mapping[str, Array]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    promised = {each.name for each in graph.output}
    promised.update(name for node in graph.node if any(inner_graphs(node)) for name in reads_of(node))
    nodes = []
    for node in graph.node:
        result = node.output[0] if len(node.output) == 1 else ""
        if result in values:
            continue
        if result in gone:
            if result in promised:  # its name is an output's, or control flow reads it from within
                nodes.append(onnx.helper.make_node("Identity", [_real(gone, result)], [result], name=node.name))
            continue
        for index, name in enumerate(node.input):
            node.input[index] = _real(gone, name)
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    del graph.value_info[:]
    graph.node.extend(nodes)
    for name, value in values.items():
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=value.shape)
        declare_external(tensor)
        graph.initializer.append(tensor)
    kept = [onnx.NodeProto.FromString(each.SerializeToString()) for each in live_nodes(graph)]
    del graph.node[:]
    graph.node.extend(kept)
    return without_unused(copy)
