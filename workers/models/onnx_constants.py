"""The constants of an ONNX graph: initializers, and views of them that never change at run time."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from workers.models.onnx_plugins import operator_of

Array = npt.NDArray[np.generic]

# none of these makes a tensor larger, so a small file cannot ask for much memory
VIEWS = {"Identity", "Transpose", "Reshape", "Split", "Squeeze", "Unsqueeze", "Flatten"}
VALUE_ATTRIBUTES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Replace Constant nodes by initializers, so that both are one thing from here on. Strings stay as they are."""
    kept = []
    for node in graph.node:
        tensor = _constant_tensor(node) if operator_of(node) == "Constant" else None
        if tensor is None:
            kept.append(node.SerializeToString())
        else:
            graph.initializer.append(tensor)
    if len(kept) != len(graph.node):
        del graph.node[:]
        graph.node.extend(onnx.NodeProto.FromString(each) for each in kept)


def _constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return tensor
    if attribute.name not in VALUE_ATTRIBUTES:
        return None
    value = onnx.helper.get_attribute_value(attribute)
    return numpy_helper.from_array(np.asarray(value, dtype=VALUE_ATTRIBUTES[attribute.name]), node.output[0])


class Constants:
    """Constant tensors by name. ``weights``: the values of the initializers that the graph only declares."""

    def __init__(self, model: onnx.ModelProto, weights: Mapping[str, Array]) -> None:
        self._opsets = list(model.opset_import)
        self._values: dict[str, Array] = {
            each.name: weights[each.name] if each.name in weights else numpy_helper.to_array(each)
            for each in model.graph.initializer
        }
        self._sources = {name: name for name in self._values}
        for node in model.graph.node:
            if operator_of(node) in VIEWS and all(name in self._values for name in node.input if name):
                self._add_view(node)

    def value(self, name: str) -> Array | None:
        """The value of a constant tensor; None for an activation."""
        return self._values.get(name)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def source(self, name: str) -> str:
        """The name of the initializer behind the views."""
        return self._sources[name]

    def _add_view(self, node: onnx.NodeProto) -> None:
        data = self._values[node.input[0]]
        results: list[Any]
        if operator_of(node) == "Identity":
            results = [data]
        elif operator_of(node) == "Transpose":
            order = next((list(each.ints) for each in node.attribute if each.name == "perm"), None)
            results = [np.transpose(data, order)]
        else:
            graph = onnx.helper.make_graph(
                [node],
                "view",
                [onnx.ValueInfoProto(name=name) for name in node.input if name],
                [onnx.ValueInfoProto(name=name) for name in node.output],
            )
            feeds = {name: self._values[name] for name in node.input if name}
            model = onnx.helper.make_model(graph, opset_imports=self._opsets)
            try:
                results = list(ReferenceEvaluator(model).run(None, feeds))
            except (RuntimeError, ValueError, TypeError, IndexError):
                return  # what cannot be computed here is an activation
        for name, value in zip(node.output, results, strict=True):
            self._values[name] = value
            self._sources[name] = self._sources[node.input[0]]
