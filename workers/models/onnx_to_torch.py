"""Writes an ONNX graph out as a torch graph, so that it can be differentiated.

Every node becomes one call of a torch function under the node's own name; what hangs on constants alone is computed
here and becomes a constant, except layers, which stay where they are. Sizes that the graph computes stay computed.
An operator that is not in the table is refused: a graph that is nearly the model would answer for another one.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from operator import getitem
from typing import Any

import onnx
import torch
from torch import fx

from service.domain.errors import first_line
from service.domain.layers import TensorSpec
from service.inspection.formats import quoted
from workers.models.onnx_constants import Constants
from workers.models.onnx_graph import OnnxProgram
from workers.models.onnx_plugins import is_plugin
from workers.models.onnx_to_torch_elementwise import ELEMENTWISE
from workers.models.onnx_to_torch_indexing import INDEXING
from workers.models.onnx_to_torch_node import Made, Rule, Site, Value, refusal
from workers.models.onnx_to_torch_norms import NORMS
from workers.models.onnx_to_torch_pools import POOLS
from workers.models.onnx_to_torch_products import PRODUCTS
from workers.models.onnx_to_torch_reductions import REDUCTIONS
from workers.models.onnx_to_torch_shapes import SHAPES
from workers.models.torch_export import TorchProgram

STANDARD: Mapping[str, Rule] = ELEMENTWISE | PRODUCTS | POOLS | NORMS | REDUCTIONS | SHAPES | INDEXING
RULES: Mapping[str, Mapping[str, Rule]] = {
    "": STANDARD,
    "ai.onnx": STANDARD,
    "com.microsoft": {"Gelu": ELEMENTWISE["Gelu"]},
}

ERRORS = (RuntimeError, ValueError, TypeError, IndexError)
"""What torch raises at arguments that it does not take."""


@dataclass(frozen=True)
class Converted:
    """``program``: its inputs have names of their own; ``inputs``: the model's name of an input → that one.

    ``nodes``: the name of an ONNX node → the call that it became.
    """

    program: TorchProgram
    inputs: Mapping[str, str]
    nodes: Mapping[str, fx.Node]


def convert(program: OnnxProgram, layers: Collection[str]) -> Converted:
    """The torch graph of a program. ``layers``: the names of the nodes that must not be computed beforehand.

    Raises InvalidInput (``method``) that names the first node that cannot be written out.
    """
    return _Conversion(program, frozenset(layers)).run()


class _Conversion:
    """One walk over the nodes, which ONNX keeps in topological order."""

    def __init__(self, program: OnnxProgram, layers: frozenset[str]) -> None:
        self._program = program
        self._layers = layers
        self._constants = Constants(program.skeleton, program.weights)
        self._makers = {name: node for node in program.skeleton.graph.node for name in node.output}
        self._graph = fx.Graph()
        self._root = torch.nn.Module()
        self._values: dict[str, Value] = {}
        self._attributes: dict[torch.Tensor, fx.Node] = {}
        self._nodes: dict[str, fx.Node] = {}

    def run(self) -> Converted:
        inputs = {}
        for index, spec in enumerate(self._program.inputs):
            # a placeholder's name becomes Python code, and the model's may be any text
            inputs[spec.name] = f"input_{index}"
            placeholder = self._graph.placeholder(inputs[spec.name])
            placeholder.meta["val"] = _example(spec)
            self._values[spec.name] = placeholder
        for node in self._program.skeleton.graph.node:
            if not all(each in self._constants for each in node.output if each):
                self._node(node)
        self._graph.output(tuple(self._outputs()))
        specs = tuple(spec.model_copy(update={"name": inputs[spec.name]}) for spec in self._program.inputs)
        module = fx.GraphModule(self._root, self._graph)
        made = TorchProgram(
            module, specs, self._program.outputs, self._program.batch_size, self._program.folded_batch_norms
        )
        return Converted(made, inputs, self._nodes)

    def _node(self, node: onnx.NodeProto) -> None:
        rule = RULES.get(node.domain, {}).get(node.op_type)
        if rule is None:
            plugin = "is a plugin, whose library torch cannot use"
            raise refusal(node, plugin if is_plugin(node) else "is not among those that are written out")
        try:
            made = rule(Site(node, tuple(self._value(each) if each else None for each in node.input)))
            operands = [each for each in made.args if isinstance(each, fx.Node)]
            if operands or node.name in self._layers:
                self._call(node, made)
            else:
                with torch.no_grad():
                    self._keep(node, made, made.function(*made.args, **made.keywords))
        except ERRORS as error:
            raise refusal(node, f"does not run in torch: {first_line(error)}") from error

    def _value(self, name: str) -> Value:
        if name in self._values:
            return self._values[name]
        maker = self._makers.get(name)
        if maker is not None and name not in self._constants:
            raise refusal(maker, f"with the result {quoted(name)} is not written out")
        self._values[name] = torch.tensor(self._constants.value(name))
        return self._values[name]

    def _call(self, node: onnx.NodeProto, made: Made) -> None:
        args = tuple(self._operand(each) if isinstance(each, torch.Tensor) else each for each in made.args)
        called = self._graph.create_node("call_function", made.function, args, dict(made.keywords), name=node.name)
        self._nodes[node.name] = called
        if made.several:
            parts = [self._graph.call_function(getitem, (called, index)) for index in range(len(node.output))]
            self._keep(node, made, parts)
        else:
            self._keep(node, made, called)

    def _keep(self, node: onnx.NodeProto, made: Made, result: Any) -> None:
        results = result if made.several else [result]
        # further results, which a rule does not write out, may be declared and never read
        self._values.update(zip(node.output, results, strict=False))

    def _operand(self, value: Value) -> fx.Node:
        """The node that stands for a value; a constant becomes a buffer."""
        if isinstance(value, fx.Node):
            return value
        if value not in self._attributes:
            name = f"constant_{len(self._attributes)}"
            self._root.register_buffer(name, value)
            self._attributes[value] = self._graph.get_attr(name)
        return self._attributes[value]

    def _outputs(self) -> Iterator[fx.Node]:
        for spec in self._program.outputs:
            node = self._operand(self._value(spec.name))
            node.meta["val"] = _example(spec)
            yield node


def _example(spec: TensorSpec) -> torch.Tensor:
    """A tensor without values of the declared type; every free size is 1."""
    sizes = [each if isinstance(each, int) else 1 for each in spec.shape]
    return torch.empty(sizes, dtype=getattr(torch, spec.dtype), device="meta")
