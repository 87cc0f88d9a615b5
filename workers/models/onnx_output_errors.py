"""Makes the graph that compares each layer's output in int8 with that in fp32, both from the same fp32 inputs."""

from collections.abc import Iterable, Mapping

import onnx

from workers.models.onnx_layers import Found
from workers.models.onnx_names import fresh_prefix
from workers.models.onnx_qdq import VariantGraph, add_quantized
from workers.models.onnx_walk import all_names

FIRST_WITH_AXES_AS_INPUT = 18
"""The opset from which ReduceSumSquare takes its axes as an input."""

SIGNAL, NOISE = "signal", "noise"


def with_output_errors(
    skeleton: onnx.ModelProto, layers: Iterable[Found], amax: Mapping[str, float]
) -> tuple[VariantGraph, dict[tuple[str, str], list[str]]]:
    """The fp32 graph with every layer once more beside itself, in int8, and (layer id, signal or noise) → its outputs.

    Those are its only outputs: Σ a² and Σ (a_int8 − a)², each of shape (first axis of a,), for each float output a.
    """
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    graph = model.graph
    del graph.node[:], graph.output[:]
    prefix = fresh_prefix(all_names(skeleton.graph), "error/")
    opset = next(each.version for each in skeleton.opset_import if each.domain in {"", "ai.onnx"})
    chosen = {found.node: found for found in layers}
    weights: dict[str, str] = {}
    outputs: dict[tuple[str, str], list[str]] = {}
    if opset >= FIRST_WITH_AXES_AS_INPUT:
        graph.initializer.append(onnx.helper.make_tensor(f"{prefix}axes", onnx.TensorProto.INT64, [1], [1]))
    for node in skeleton.graph.node:
        graph.node.append(node)
        found = chosen.get(node.name)
        if found is None:
            continue
        stem = f"{prefix}{node.name}"
        int8 = onnx.NodeProto()
        int8.CopyFrom(node)
        int8.name = stem
        made = [f"{stem}/{index}/output" for index in range(len(node.output))]
        int8.output[:] = made
        weights |= add_quantized(graph, int8, found, amax, stem)
        for index in found.outputs or (0,):
            error = f"{stem}/{index}/error"
            graph.node.append(onnx.helper.make_node("Sub", [made[index], node.output[index]], [error]))
            for part, source in ((SIGNAL, node.output[index]), (NOISE, error)):
                sum_ = _sum_of_squares(graph, source, f"{stem}/{index}/{part}", prefix, opset)
                outputs.setdefault((found.layer.id, part), []).append(sum_)
    return VariantGraph(model, weights), outputs


def _sum_of_squares(graph: onnx.GraphProto, source: str, name: str, prefix: str, opset: int) -> str:
    """Adds an output ``name``: a sum for each index of the first axis, so that samples can be told apart."""
    graph.node.append(onnx.helper.make_node("Flatten", [source], [f"{name}/rows"], axis=1))
    inputs, axes = (
        ([f"{name}/rows", f"{prefix}axes"], {})
        if opset >= FIRST_WITH_AXES_AS_INPUT
        else (
            [f"{name}/rows"],
            {"axes": [1]},
        )
    )
    graph.node.append(onnx.helper.make_node("ReduceSumSquare", inputs, [name], keepdims=0, **axes))
    graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return name
