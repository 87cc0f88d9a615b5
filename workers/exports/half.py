"""Puts layers of a float32 graph into float16: their weights, casts where precision changes, none needless.

What only follows such a layer (an activation, a reshape, a join of float16 branches) is float16 too, so that no cast
lies between. Operations whose float16 results are known to be poor (normalisation, softmax, sums, powers) stay float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from workers.exports.onnx_steps import STANDARD
from workers.models.onnx_constants import Constants
from workers.models.onnx_graph import declare_external
from workers.models.onnx_names import fresh_prefix
from workers.models.onnx_plugins import is_plugin
from workers.models.onnx_walk import all_names, inner_graphs

Array = npt.NDArray[np.generic]

LARGEST_HALF = float(np.finfo(np.float16).max)
FOLLOWER_NAMES = (
    "Relu LeakyRelu Elu Sigmoid HardSigmoid HardSwish Tanh Gelu Clip Mish Identity Neg Abs Add Sub Mul MaxPool "
    "AveragePool GlobalAveragePool Concat Reshape Transpose Flatten Squeeze Unsqueeze Pad BatchNormalization"
)
FOLLOWERS = frozenset(FOLLOWER_NAMES.split())


@dataclass(frozen=True)
class KeptFloat32:
    """A fallback layer that stays in float32, and why."""

    layer: str
    reason: str


def halved(
    model: onnx.ModelProto, weights: dict[str, Array], layers: Mapping[str, str], constants: Constants
) -> tuple[KeptFloat32, ...]:
    """Change the graph in place; ``weights`` gets the float16 ones. ``layers``: node in float32 → layer.

    Each result is cast back under its own name; where nobody reads that, the cast is dead and the caller drops it.

    The graph's inputs and outputs keep their types. ``constants``: those of the graph before quantization.
    """
    return _Halving(model, weights, constants).run(layers)


class _Halving:
    """One pass over the nodes in order."""

    def __init__(self, model: onnx.ModelProto, weights: dict[str, Array], constants: Constants) -> None:
        self._graph = model.graph
        self._weights = weights
        self._constants = constants
        self._prefix = fresh_prefix(all_names(model.graph), "fp16/")
        self._initializers = {each.name for each in model.graph.initializer}
        self._halves: dict[str, str] = {}  # tensor → its float16 twin
        self._made_half: set[str] = set()  # tensors that a float16 node makes
        self._nodes: list[onnx.NodeProto] = []

    def run(self, layers: Mapping[str, str]) -> tuple[KeptFloat32, ...]:
        """Find which nodes become float16, then rewrite."""
        originals = [onnx.NodeProto.FromString(each.SerializeToString()) for each in self._graph.node]
        kept = []
        chosen: set[str] = set()
        for node in originals:
            reason = self._obstacle(node)
            if node.name in layers and reason is not None:
                kept.append(KeptFloat32(layers[node.name], reason))
            elif reason is None and (node.name in layers or self._follows(node)):
                chosen.add(node.name)
                self._made_half.update(node.output)
        for node in originals:
            self._add(node, half=node.name in chosen)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        return tuple(kept)

    def _floats(self, node: onnx.NodeProto) -> list[Array]:
        values = (self._constants.value(name) for name in node.input if name)
        return [value for value in values if value is not None and value.dtype == np.float32]

    def _obstacle(self, node: onnx.NodeProto) -> str | None:
        if any(np.abs(value).max(initial=0.0) > LARGEST_HALF for value in self._floats(node)):
            return f"a constant that it reads is beyond {LARGEST_HALF:g}, the largest float16"
        if is_plugin(node):
            return "it is a plugin, which may take float32 alone"
        if any(inner_graphs(node)) or len(node.output) != 1:
            return "it has inner graphs or several outputs"
        return None

    def _follows(self, node: onnx.NodeProto) -> bool:
        if node.op_type not in FOLLOWERS or node.domain not in STANDARD:
            return False
        read = [name for name in self._data(node) if name not in self._constants]
        return bool(read) and all(name in self._made_half for name in read)

    def _data(self, node: onnx.NodeProto) -> list[str]:
        """The inputs that share the operation's type; shapes, axes and pads are integers."""
        only_first = {"Reshape", "Squeeze", "Unsqueeze", "ReduceMean"}
        if node.op_type == "Pad":
            return [name for name in (node.input[0], *node.input[2:3]) if name]
        return [name for name in (node.input[:1] if node.op_type in only_first else node.input) if name]

    def _add(self, node: onnx.NodeProto, *, half: bool) -> None:
        if not half:
            self._nodes.append(node)
            return
        wanted = set(self._data(node))
        for index, name in enumerate(node.input):
            if name in wanted:
                node.input[index] = self._half(name)
        result = node.output[0]
        node.output[0] = self._halves[result] = f"{self._prefix}{result}"
        self._nodes.append(node)
        self._cast(self._halves[result], result, onnx.TensorProto.FLOAT)

    def _half(self, name: str) -> str:
        """The float16 twin of a tensor, made at the first call; of anything but float32, the tensor itself."""
        value = self._constants.value(name)
        if value is not None and value.dtype != np.float32:
            return name
        if name not in self._halves:
            self._halves[name] = f"{self._prefix}{name}"
            if value is None:
                self._cast(name, self._halves[name], onnx.TensorProto.FLOAT16)
            else:
                self._store(self._halves[name], value.astype(np.float16))
        return self._halves[name]

    def _cast(self, source: str, result: str, kind: int) -> None:
        name = f"{self._prefix}{result}_Cast"
        self._nodes.append(onnx.helper.make_node("Cast", [source], [result], name=name, to=kind))

    def _store(self, name: str, value: Array) -> None:
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT16, dims=value.shape)
        declare_external(tensor)
        self._graph.initializer.append(tensor)
        self._weights[name] = value
