"""Makes the graph of a variant: Q/DQ on exactly the input edges of its layers, their weights fake-quantized."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from workers.engine.fake_quant import fake_quantize, scale_of
from workers.models.onnx_graph import declare_external
from workers.models.onnx_layers import Found

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


def quantized_weight(found: Found, *, per_channel: bool) -> Floats | None:
    """A layer's weight after quantization; None where it has none."""
    if found.weight is None:
        return None
    _, value, axis = found.weight
    group = found.layer.op.value == "ConvTranspose" and value.shape[1] != found.layer.output_shape[0]  # type: ignore[index]
    # grouped transposed convolutions repeat output channels over the groups: one scale is safe
    return fake_quantize(value.astype(np.float32), axis if per_channel and not group else None)


def insert_qdq(
    skeleton: onnx.ModelProto, layers: Iterable[Found], amax: Mapping[str, float], weights: Mapping[str, Floats]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A copy of the graph with ``layers`` in int8, and the initializers that it needs beside the model's own.

    ``amax``: activation edge → range; ``weights``: layer id → quantized weight. Other readers of the same tensor
    keep the floating-point value.
    """
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    chosen = {found.node: found for found in layers}
    nodes: list[onnx.NodeProto] = []
    added: dict[str, Array] = {}
    for node in model.graph.node:
        found = chosen.get(node.name)
        if found is not None:
            nodes.extend(_pairs(model.graph, node, found, amax))
            if found.weight is not None:
                name = f"{node.name}__int8_weight"
                added[name] = weights[found.layer.id]
                _declare(model.graph, name, added[name])
                node.input[found.weight[0]] = name
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model, added


def _pairs(
    graph: onnx.GraphProto, node: onnx.NodeProto, found: Found, amax: Mapping[str, float]
) -> list[onnx.NodeProto]:
    made = []
    for index in found.operands:
        stem = f"{node.name}__input_{index}"
        scale = numpy_helper.from_array(np.asarray(scale_of(amax[f"{found.layer.id}:{index}"])), f"{stem}_scale")
        zero = numpy_helper.from_array(np.zeros((), dtype=np.int8), f"{stem}_zero")
        graph.initializer.extend([scale, zero])
        made.append(
            onnx.helper.make_node(
                "QuantizeLinear", [node.input[index], scale.name, zero.name], [f"{stem}_q"], name=f"{stem}_Q"
            )
        )
        made.append(
            onnx.helper.make_node(
                "DequantizeLinear", [f"{stem}_q", scale.name, zero.name], [f"{stem}_dq"], name=f"{stem}_DQ"
            )
        )
        node.input[index] = f"{stem}_dq"
    return made


def _declare(graph: onnx.GraphProto, name: str, value: Array) -> None:
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=value.shape)
    declare_external(tensor)
    graph.initializer.append(tensor)
