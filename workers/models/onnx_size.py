"""Refuses graphs that are too large to be worked on, before anything walks over them or expands their functions."""

from collections.abc import Iterable

import onnx

from service.domain.errors import RejectedFile
from service.inspection.formats import quoted
from workers.models.onnx_walk import inner_graphs

MOST_NODES = 100_000
"""Of a graph with its functions expanded and its inner graphs. The largest networks that are swept have thousands."""
DEEPEST = 50

Key = tuple[str, str]


def refuse_too_many_nodes(model: onnx.ModelProto) -> None:
    """Raise RejectedFile where the graph has too many nodes, or where a function calls itself; takes no long look."""
    counted = _Counted({(each.domain, each.name): each for each in model.functions})
    total = counted.of(model.graph.node, ())
    if total > MOST_NODES:
        raise RejectedFile(
            f"the ONNX graph has more than {MOST_NODES} nodes, its functions expanded; export it with fewer operations",
            code="too-many-nodes",
        )


class _Counted:
    """Counts nodes; what is beyond the limit is not counted on."""

    def __init__(self, functions: dict[Key, onnx.FunctionProto]) -> None:
        self._functions = functions
        self._known: dict[Key, int] = {}

    def of(self, nodes: Iterable[onnx.NodeProto], inside: tuple[Key, ...], depth: int = 0) -> int:
        if depth > DEEPEST:
            raise RejectedFile(
                f"functions and control flow of the ONNX graph lie more than {DEEPEST} deep in each other",
                code="too-deep",
            )
        total = 0
        for node in nodes:
            total += 1
            for inner in inner_graphs(node):
                total += self.of(inner.node, inside, depth + 1)
            key = (node.domain, node.op_type)
            if key in self._functions:
                total += self._function(key, inside, depth + 1)
            if total > MOST_NODES:
                break
        return total

    def _function(self, key: Key, inside: tuple[Key, ...], depth: int) -> int:
        if key in inside:
            raise RejectedFile(f"the ONNX function {quoted(key[1])} calls itself", code="recursive-function")
        if key not in self._known:
            self._known[key] = self.of(self._functions[key].node, (*inside, key), depth)
        return self._known[key]
