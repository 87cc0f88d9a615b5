"""Which layers the nodes of an optimized graph compute: what ONNX Runtime fused, renamed and laid out anew.

An optimized node is found in the graph that was given by the tensors that it makes, which keep their names, else by its
own name. What it computes is all that lies between those tensors and the ones that other optimized nodes make.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import onnx

from workers.models.onnx_dataflow import PASSING
from workers.models.onnx_layers import Found
from workers.models.onnx_plugins import operator_of

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
LAYOUT = {"ReorderInput", "ReorderOutput"}
"""ONNX Runtime's own, between its blocked layout of convolutions and the usual one."""
BLOCKED = re.compile(r"(.+)_nchwc(?:_token_\d+)?")
"""A node in that layout is called after the tensor that it made before."""
ADDED = re.compile(r"(?:_token_\d+|/duplicated)+$")
FOLLOWING_NAMES = (
    "Relu Clip LeakyRelu PRelu Elu Selu Sigmoid HardSigmoid HardSwish Tanh Gelu Mish Swish BatchNormalization Add"
)
FOLLOWING = frozenset(FOLLOWING_NAMES.split())
"""What is part of the layer before it, also where it is a kernel of its own: its activation, its bias."""
INTEGER = re.compile(r"QLinear\w+|QGemm|\w*Integer\w*|QAttention|QEmbed\w*")


class Role(StrEnum):
    """What a kernel is for."""

    LAYER = "layer"
    QUANTIZE = "quantize"
    DEQUANTIZE = "dequantize"
    OTHER = "other"


@dataclass(frozen=True)
class Owner:
    """What a kernel computes. ``layers``: ids, of several the one with the most MACs first.

    ``others``: operators in the same kernel that are no part of any layer. ``tensor``: of a quantize or dequantize the
    activation that is converted, where that is known.
    """

    role: Role
    layers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    tensor: str | None = None


def computes_in_integers(operator: str) -> bool:
    """Whether this is one of ONNX Runtime's integer kernels."""
    return INTEGER.fullmatch(operator) is not None


def kernel_owners(given: onnx.GraphProto, optimized: onnx.GraphProto, found: Sequence[Found]) -> dict[str, Owner]:
    """Node of the optimized graph → what it computes. ``given``: the graph that the runtime was given.

    A layer belongs to the first node that computes it. One that belongs to none was computed when the graph was
    optimized, or under a name that is not understood.
    """
    return _Owners(given, found).of(optimized)


@dataclass
class _Owners:
    given: onnx.GraphProto
    found: Sequence[Found]
    _claimed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._nodes = {node.name: node for node in self.given.node}
        self._layers = {each.node: each.layer for each in self.found}
        self._constants = _constants(self.given)
        self._makers = {
            name: node for node in self.given.node for name in node.output if name and name not in self._constants
        }
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.given.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def of(self, optimized: onnx.GraphProto) -> dict[str, Owner]:
        made = {node.name: self._made(node) for node in optimized.node}
        frontier = {name for each in made.values() for name in each}
        frontier |= {name for node in optimized.node for name in node.output if name in self._makers}
        constants = _constants(optimized)
        owners = {
            node.name: Owner(Role.OTHER)
            if set(node.output) <= constants  # a weight
            else self._owner(node, made[node.name], frontier)
            for node in optimized.node
        }
        return self._with_followers(optimized, owners)

    def _made(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """The tensors of the given graph that an optimized node makes."""
        if node.op_type in LAYOUT:
            return ()
        kept = tuple(name for name in node.output if name in self._makers)
        if kept:
            return kept
        same = self._nodes.get(node.name) or self._nodes.get(ADDED.sub("", node.name))
        if same is not None:
            return tuple(same.output)
        blocked = BLOCKED.fullmatch(node.name)
        if blocked is not None and blocked[1] in self._makers:
            return (self._fused_behind(blocked[1], node),)
        return ()

    def _fused_behind(self, tensor: str, node: onnx.NodeProto) -> str:
        """Past the addition and the activation that were fused into a node after it got its name."""
        if len(node.input) > 3 and node.input[3]:
            tensor = self._past(tensor, {"Add"})
        activated = any(each.name == "activation" for each in node.attribute)
        return self._past(tensor, FOLLOWING - {"Add"}) if activated else tensor

    def _past(self, tensor: str, operators: Iterable[str]) -> str:
        readers = self._readers.get(tensor, [])
        if len(readers) == 1 and readers[0].op_type in operators:
            return str(readers[0].output[0])
        return tensor

    def _owner(self, node: onnx.NodeProto, made: Sequence[str], frontier: set[str]) -> Owner:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            role = Role.QUANTIZE if node.op_type == QUANTIZE else Role.DEQUANTIZE
            return Owner(role, tensor=self._converted(made))
        inside = self._between(made, frontier)
        layers = [self._layers[each.name] for each in inside if each.name in self._layers]
        own = sorted((each for each in layers if each.id not in self._claimed), key=lambda each: -(each.macs or 0))
        self._claimed.update(each.id for each in own)
        operators = {operator_of(each) for each in inside if each.name not in self._layers}
        others = tuple(sorted(operators - PASSING - {QUANTIZE, DEQUANTIZE}))
        return Owner(Role.LAYER if own else Role.OTHER, tuple(each.id for each in own), others)

    def _converted(self, made: Sequence[str]) -> str | None:
        """The activation behind a quantize or dequantize; None where it cannot be told."""
        maker = self._makers.get(made[0]) if made else None
        if maker is not None and maker.op_type == DEQUANTIZE:
            maker = self._makers.get(maker.input[0])
        if maker is None or maker.op_type != QUANTIZE:
            return None
        return str(maker.input[0])

    def _between(self, made: Sequence[str], frontier: set[str]) -> list[onnx.NodeProto]:
        inside: dict[str, onnx.NodeProto] = {}
        stack = [self._makers[name] for name in made if name in self._makers]
        while stack:
            node = stack.pop()
            if node.name in inside:
                continue
            inside[node.name] = node
            stack += [self._makers[name] for name in node.input if name in self._makers and name not in frontier]
        return list(inside.values())

    def _with_followers(self, optimized: onnx.GraphProto, owners: Mapping[str, Owner]) -> dict[str, Owner]:
        """Activations and biases that run by themselves are counted with the layer that alone they follow."""
        constants = _constants(optimized)
        makers = {name: node for node in optimized.node for name in node.output}
        readers = Counter(name for node in optimized.node for name in node.input)
        readers.update(each.name for each in optimized.output)
        found = dict(owners)
        for node in optimized.node:
            if node.op_type not in FOLLOWING or found[node.name].role is not Role.OTHER:
                continue
            read = [name for name in node.input if name and name not in constants]
            before = makers.get(read[0]) if len(read) == 1 and readers[read[0]] == 1 else None
            if before is not None and found[before.name].role is Role.LAYER:
                found[node.name] = replace(found[before.name], others=())
        return found


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Initializers, and what is computed from them alone."""
    found = {each.name for each in graph.initializer}
    for node in graph.node:
        read = [name for name in node.input if name]
        if all(name in found for name in read):
            found.update(node.output)
    return found
