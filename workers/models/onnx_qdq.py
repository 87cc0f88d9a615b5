"""Makes the graph of a variant: Q/DQ on exactly the input edges of its layers, their weights fake-quantized."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from workers.models.fake_quant import fake_quantize, scale_of
from workers.models.onnx_graph import declare_external
from workers.models.onnx_layers import Found
from workers.models.onnx_names import fresh_prefix
from workers.models.onnx_walk import all_names

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class VariantGraph:
    """The graph of a variant. ``weights``: initializer that is declared in it → the layer whose int8 weight it is."""

    model: onnx.ModelProto
    weights: Mapping[str, str]


def quantized_weight(found: Found, *, per_channel: bool) -> Floats:
    """The weight of a layer that has one, after quantization and back, in float32."""
    assert found.weight is not None
    _, value, axis = found.weight
    return fake_quantize(value.astype(np.float32), axis if per_channel else None)


def insert_qdq(skeleton: onnx.ModelProto, layers: Iterable[Found], amax: Mapping[str, float]) -> VariantGraph:
    """A copy of the graph with ``layers`` in int8. ``amax``: activation edge → range.

    Other readers of the same tensors and weights keep the floating-point values.
    """
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    del model.graph.node[:]
    prefix = fresh_prefix(all_names(skeleton.graph), "int8/")
    chosen = {found.node: found for found in layers}
    weights: dict[str, str] = {}
    for original in skeleton.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        found = chosen.get(node.name)
        if found is not None:
            weights |= quantize_node(model.graph, node, found, amax, f"{prefix}{node.name}")
        model.graph.node.append(node)
    return VariantGraph(model, weights)


def quantize_node(
    graph: onnx.GraphProto, node: onnx.NodeProto, found: Found, amax: Mapping[str, float], stem: str
) -> dict[str, str]:
    """Let a node that is not in the graph yet read int8 values; what it needs goes into the graph, under ``stem``.

    Gives back what ``VariantGraph.weights`` holds of it.
    """
    for index in found.operands:
        _insert_pair(graph, node, index, f"{stem}/{index}", amax[f"{found.layer.id}:{index}"])
    if found.weight is None:
        return {}
    index, value, _ = found.weight
    _declare(graph, f"{stem}/weight", value.shape)
    node.input[index] = f"{stem}/weight"
    return {f"{stem}/weight": found.layer.id}


def _insert_pair(graph: onnx.GraphProto, node: onnx.NodeProto, index: int, stem: str, amax: float) -> None:
    scale = numpy_helper.from_array(np.asarray(scale_of(amax)), f"{stem}_scale")
    zero = numpy_helper.from_array(np.zeros((), dtype=np.int8), f"{stem}_zero")
    graph.initializer.extend([scale, zero])
    for operator, source, suffix in (
        ("QuantizeLinear", node.input[index], "q"),
        ("DequantizeLinear", f"{stem}_q", "dq"),
    ):
        made = onnx.helper.make_node(
            operator, [source, scale.name, zero.name], [f"{stem}_{suffix}"], name=f"{stem}_{operator}"
        )
        graph.node.append(made)
    node.input[index] = f"{stem}_dq"


def _declare(graph: onnx.GraphProto, name: str, shape: tuple[int, ...]) -> None:
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=shape)
    declare_external(tensor)
    graph.initializer.append(tensor)
