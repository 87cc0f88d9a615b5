"""Makes the graph of a variant: Q/DQ on exactly the input edges of its layers, their weights fake-quantized.

A plugin has them behind it too: whatever reads its outputs reads them quantized.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from service.domain.layers import output_edge
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
        if found is None:
            model.graph.node.append(node)
        else:
            weights |= add_quantized(model.graph, node, found, amax, f"{prefix}{node.name}")
    return VariantGraph(model, weights)


def add_quantized(
    graph: onnx.GraphProto, node: onnx.NodeProto, found: Found, amax: Mapping[str, float], stem: str
) -> dict[str, str]:
    """Append a node (which is changed) so that it reads int8 values, with all that it needs, under ``stem``.

    Gives back what ``VariantGraph.weights`` holds of it.
    """
    for index in found.operands:
        pair = f"{stem}/{index}"
        _add_pair(graph, node.input[index], f"{pair}_dq", pair, amax[f"{found.layer.id}:{index}"])
        node.input[index] = f"{pair}_dq"
    weights: dict[str, str] = {}
    if found.weight is not None:
        _declare(graph, f"{stem}/weight", found.weight[1].shape)
        node.input[found.weight[0]] = f"{stem}/weight"
        weights[f"{stem}/weight"] = found.layer.id
    made = {index: node.output[index] for index in found.quantized_outputs}
    for index in made:
        node.output[index] = f"{stem}=>{index}_raw"
    graph.node.append(node)
    for index, tensor in made.items():
        edge = output_edge(found.layer.id, index)
        _add_pair(graph, node.output[index], tensor, f"{stem}=>{index}", amax[edge])
    return weights


def _add_pair(graph: onnx.GraphProto, source: str, result: str, stem: str, amax: float) -> None:
    scale = numpy_helper.from_array(np.asarray(scale_of(amax)), f"{stem}_scale")
    zero = numpy_helper.from_array(np.zeros((), dtype=np.int8), f"{stem}_zero")
    graph.initializer.extend([scale, zero])
    for operator, read, made in (
        ("QuantizeLinear", source, f"{stem}_q"),
        ("DequantizeLinear", f"{stem}_q", result),
    ):
        inputs = [read, scale.name, zero.name]
        graph.node.append(onnx.helper.make_node(operator, inputs, [made], name=f"{stem}_{operator}"))


def _declare(graph: onnx.GraphProto, name: str, shape: tuple[int, ...]) -> None:
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=shape)
    declare_external(tensor)
    graph.initializer.append(tensor)
