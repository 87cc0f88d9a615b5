"""Names what in a Q/DQ graph an engine will not fuse, not support, or pay for with kernels and accuracy."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx

from workers.exports.lint_layers import lint_layers
from workers.exports.lint_quantizers import lint_quantizers
from workers.exports.lint_rules import Finding, Rule
from workers.exports.onnx_steps import steps_of
from workers.exports.pairs import QdqGraph
from workers.exports.placement import JOINS, Reader, Step, same_scale_groups

Array = npt.NDArray[np.generic]


def lint_qdq(model: onnx.ModelProto, weights: Mapping[str, Array]) -> tuple[Finding, ...]:
    """All violations, pairs first, then layers, then joins. Nodes must have names (``name_nodes``).

    ``weights``: the values of initializers that the graph only declares. The bodies of control flow are not looked at.
    """
    graph = QdqGraph(model, weights)
    return (*lint_quantizers(graph), *lint_layers(graph), *_joins(graph))


def _joins(graph: QdqGraph) -> Iterator[Finding]:
    """Joins whose branches or result have different scales."""
    steps, quantized = _without_pairs(graph)
    scale = _scales(graph)
    groups = same_scale_groups(steps, quantized, graph.given_out)
    for step in steps:
        if step.op not in JOINS:
            continue
        around = {*step.inputs, step.outputs[0]}
        if not any(around <= group for group in groups):
            # it runs in floating point, or its own inputs are quantized
            around = {each.tensor for each in quantized if each.step == step.name}
        found = {each: scale[each] for each in sorted(around) if each in scale}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{tensor} {value:.6g}" for tensor, value in found.items())
            yield Finding(Rule.REQUANTIZE, step.name, step.outputs[0], f"tensors around it have the scales {listed}")


def _without_pairs(graph: QdqGraph) -> tuple[list[Step], list[Reader]]:
    """The operations as if there were no pairs, and the reads that go through one."""
    source = {
        each.result: quantize.source
        for each in graph.dequantizes.values()
        if (quantize := graph.quantizes.get(each.source)) is not None
    }
    steps, quantized = [], []
    for step in steps_of(graph.graph, graph.constants):
        if step.outputs[0] in graph.quantizes or step.outputs[0] in graph.dequantizes:
            continue
        inputs = tuple(source.get(name, name) for name in step.inputs)
        steps.append(Step(step.name, step.op, inputs, step.outputs))
        quantized += [Reader(step.name, source[name]) for name in step.inputs if name in source]
    return steps, quantized


def _scales(graph: QdqGraph) -> dict[str, float]:
    return {
        each.source: float(each.scale.reshape(-1)[0])
        for each in graph.quantizes.values()
        if each.scale is not None and each.scale.size == 1
    }
