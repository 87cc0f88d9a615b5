"""An ONNX graph as the placement rules see it: operations and the activations between them."""

from collections.abc import Iterator

import onnx

from workers.exports.placement import MOVES, Step
from workers.models.onnx_constants import Constants
from workers.models.onnx_walk import all_nodes, inner_graphs

STANDARD = frozenset({"", "ai.onnx"})
ONLY_FIRST = MOVES | {"MaxPool"}  # their other inputs are shapes and axes


def reads_of(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, the bodies of control flow included."""
    yield from (name for name in node.input if name)
    for inner in inner_graphs(node):
        yield from (name for each in all_nodes(inner) for name in each.input if name)
        yield from (each.name for each in inner.output)


def steps_of(graph: onnx.GraphProto, constants: Constants) -> list[Step]:
    """The operations that read or make activations, in the graph's order."""
    steps = []
    for node in graph.node:
        op = node.op_type if node.domain in STANDARD else f"{node.domain}::{node.op_type}"
        read = list(node.input[:1]) if op in ONLY_FIRST else list(reads_of(node))
        inputs = tuple(name for name in read if name not in constants)
        steps.append(Step(node.name, op, inputs, tuple(name for name in node.output if name)))
    return steps


def live_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes whose results somebody needs, in order."""
    needed = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            needed.update(reads_of(node))
            kept.append(node)
    return kept[::-1]
