"""Cuts an ONNX graph before a node: the tensors that cross, and the piece between two cuts as a model of its own."""

from math import prod

import onnx

from workers.models.onnx_walk import inner_graphs


class Cuts:
    """Where a graph can be cut. A cut is the position of the node before which it lies; 0 is the whole graph.

    A graph with control flow inside is never cut: its inner graphs read tensors by name from anywhere. ``skeleton``
    holds its inferred shapes, as ``read_onnx`` leaves it.
    """

    def __init__(self, skeleton: onnx.ModelProto) -> None:
        self._skeleton = skeleton
        graph = skeleton.graph
        self._nodes = list(graph.node)
        self._types = _types(skeleton)
        self._constants = {each.name for each in graph.initializer}
        self._outputs = [each.name for each in graph.output]
        self._made_at = {name: index for index, node in enumerate(self._nodes) for name in node.output if name}
        self._last_read: dict[str, int] = {}
        for index, node in enumerate(self._nodes):
            for name in node.input:
                self._last_read[name] = index
        self._last_read.update(dict.fromkeys(self._outputs, len(self._nodes)))
        self._whole = any(True for node in self._nodes for _ in inner_graphs(node))

    def position(self, node: str) -> int:
        """The cut before the node of this name."""
        return next(index for index, each in enumerate(self._nodes) if each.name == node)

    def crossing(self, cut: int) -> list[str]:
        """The tensors that are made before the cut, or come from outside, and are needed after it."""
        outside = [each.name for each in self._skeleton.graph.input]
        before = [*outside, *(name for node in self._nodes[:cut] for name in node.output if name)]
        return [name for name in before if self._last_read.get(name, -1) >= cut and name not in self._constants]

    def possible(self, cut: int) -> bool:
        """Whether all that crosses is a tensor of known type."""
        return cut == 0 or (not self._whole and all(name in self._types for name in self.crossing(cut)))

    def bytes_of_sample(self, cut: int) -> int:
        """How much crosses for one sample, free sizes taken as 1."""
        return sum(_size(self._types[name]) for name in self.crossing(cut) if name in self._types)

    def piece(self, start: int, stop: int | None = None) -> onnx.ModelProto:
        """The nodes from one cut to another (or to the end), with what crosses as inputs and outputs.

        Outputs of the model that are made before ``start`` are none of the piece's.
        """
        if start == 0 and stop is None:
            return self._skeleton
        nodes = self._nodes[start:stop]
        made = {name for node in nodes for name in node.output}
        wanted = self._outputs if stop is None else self.crossing(stop)
        read = {name for node in nodes for name in node.input}
        graph = onnx.helper.make_graph(
            nodes,
            self._skeleton.graph.name or "piece",
            [self._types[name] for name in self.crossing(start) if name in read],
            [self._types[name] for name in wanted if name in made],
            initializer=[each for each in self._skeleton.graph.initializer if each.name in read],
        )
        return onnx.helper.make_model(
            graph, opset_imports=self._skeleton.opset_import, ir_version=self._skeleton.ir_version
        )


def _types(skeleton: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    graph = skeleton.graph
    every = [*graph.value_info, *graph.input, *graph.output]
    return {each.name: each for each in every if each.type.tensor_type.elem_type}


def _size(info: onnx.ValueInfoProto) -> int:
    tensor = info.type.tensor_type
    return 4 * prod(max(1, int(size.dim_value)) for size in tensor.shape.dim[1:])
