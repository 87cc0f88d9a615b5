"""Finds the layers of an ONNX graph: quantizable nodes with their quantized inputs, names and costs."""

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from service.domain.layers import Layer, Operation, SkippedOperation, output_edge
from workers.models.names import Names
from workers.models.onnx_constants import Constants
from workers.models.onnx_graph import OnnxProgram
from workers.models.onnx_names import module_scope
from workers.models.onnx_plugins import is_plugin, operator_of
from workers.models.onnx_shapes import concrete, dims, may_be_same
from workers.models.onnx_walk import all_nodes, count_readers, inner_graphs
from workers.models.residual import Operand, is_residual, quantized_operands

Array = npt.NDArray[np.generic]

FLOAT = onnx.TensorProto.FLOAT

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
POOLS = {"AveragePool", "GlobalAveragePool"}
ELEMENTWISE_NAMES = (
    "Add Sub Mul Div Pow Neg Exp Erf Tanh Sigmoid Relu Gelu LeakyRelu Elu Clip HardSigmoid HardSwish Sqrt Reciprocal "
    "Abs Softplus Mish Selu PRelu Swish Identity Cast Dropout"
)
ELEMENTWISE = frozenset(ELEMENTWISE_NAMES.split())
OPERATIONS = {"Conv": Operation.CONV, "ConvTranspose": Operation.CONV_TRANSPOSE, "Gemm": Operation.LINEAR}


@dataclass(frozen=True)
class Found:
    """A layer and its node. ``operands``: indices of the quantized activation inputs.

    ``weight``: index of the constant input, its value, and the axis of its output channels (None: one scale for all).
    ``outputs``: of a plugin, indices of the outputs that have a range; ``quantized_outputs``: those of them that are
    quantized with it, which all are but for outputs of the graph.
    """

    layer: Layer
    node: str
    operands: tuple[int, ...]
    weight: tuple[int, Array, int | None] | None = None
    outputs: tuple[int, ...] = ()
    quantized_outputs: tuple[int, ...] = ()


class LayerFinder:
    """Walks a program once and lists its layers in topological order."""

    def __init__(self, program: OnnxProgram) -> None:
        graph = program.skeleton.graph
        self._graph = graph
        self._constants = Constants(program.skeleton, program.weights)
        self._batch = program.batch_size or 1
        self._makers = {name: node for node in graph.node for name in node.output}
        self._order = {node.name: index for index, node in enumerate(graph.node)}
        self._readers = count_readers(graph)
        self._given_out = {each.name for each in graph.output}
        declared = (*graph.value_info, *graph.input, *graph.output)
        self._shapes = {each.name: dims(each) for each in declared}
        self._types = {each.name: each.type.tensor_type.elem_type for each in declared}
        self._names = Names()
        self._roots: dict[str, frozenset[str]] = {}
        self._residual: set[str] = set()
        self.skipped: list[SkippedOperation] = []

    def find(self) -> list[Found]:
        """All layers."""
        found = []
        for node in self._graph.node:
            each = self._layer(node)
            if each is not None:
                found.append(each)
        return found

    def _layer(self, node: onnx.NodeProto) -> Found | None:
        if any(inner_graphs(node)):
            self._skip_inner(node)
            return None
        if is_plugin(node):
            return self._plugin(node)
        if operator_of(node) in OPERATIONS:
            return self._with_weight(node)
        if operator_of(node) == "MatMul":
            return self._product(node)
        if operator_of(node) == "Add":
            return self._addition(node)
        if operator_of(node) in POOLS or self._is_spatial_mean(node):
            return self._make(node, Operation.AVERAGE_POOL, (0,))
        return None

    def _skip_inner(self, node: onnx.NodeProto) -> None:
        inside = (each for inner in inner_graphs(node) for each in all_nodes(inner))
        for each in inside:
            if operator_of(each) in WEIGHTED | POOLS or is_plugin(each):
                self._skip(
                    f"{node.name}/{each.name or operator_of(each)}",
                    f"it is inside the {operator_of(node)} node {node.name!r}",
                )

    def _skip(self, name: str, reason: str) -> None:
        self.skipped.append(SkippedOperation(id=name, name=name, reason=reason))

    def _is_spatial_mean(self, node: onnx.NodeProto) -> bool:
        """Whether this is a global average pool, written as exporters write an adaptive one to size 1."""
        shape = self._shapes.get(node.input[0]) if operator_of(node) == "ReduceMean" else None
        if shape is None or len(shape) < 3 or not _attribute(node, "keepdims", 1):
            return False
        axes = _attribute(node, "axes", None)
        if axes is None and len(node.input) > 1:
            value = self._constants.value(node.input[1])
            axes = None if value is None else value.reshape(-1).tolist()
        return axes is not None and sorted(axis % len(shape) for axis in axes) == list(range(2, len(shape)))

    def _with_weight(self, node: onnx.NodeProto) -> Found | None:
        operation = OPERATIONS[operator_of(node)]
        weight = self._constants.value(node.input[1])
        if node.input[0] in self._constants:
            return None
        if weight is None:
            return self._make(node, operation, (0, 1))
        axis: int | None = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if _attribute(node, "transB", 0) else 1}[
            operator_of(node)
        ]
        if operation is Operation.CONV_TRANSPOSE and _attribute(node, "group", 1) != 1:
            # output channels repeat over the groups, so axis 1 alone does not name a channel; one scale is safe
            axis = None
        return self._make(node, operation, (0,), weight=(1, weight, axis))

    def _product(self, node: onnx.NodeProto) -> Found | None:
        left, right = (self._constants.value(name) for name in node.input)
        if left is not None and right is not None:
            return None
        # a vector has one output channel; its only axis is the one that is summed over
        if right is not None:
            return self._make(node, Operation.LINEAR, (0,), weight=(1, right, -1 if right.ndim > 1 else None))
        if left is not None:
            return self._make(node, Operation.LINEAR, (1,), weight=(0, left, -2 if left.ndim > 1 else None))
        return self._make(node, Operation.MATMUL, (0, 1))

    def _addition(self, node: onnx.NodeProto) -> Found | None:
        first, second = node.input
        if first in self._constants or second in self._constants or self._types.get(first, FLOAT) != FLOAT:
            return None
        operands = [self._operand(name) for name in (first, second)]
        if not is_residual(*operands):
            return None
        shapes = [self._shapes.get(name) for name in (first, second)]
        if shapes[0] is None or shapes[1] is None:
            self._skip(node.name, "the shapes of its operands are not known from the file")
            return None
        if not may_be_same(shapes[0], shapes[1]):
            return None
        self._residual.add(node.name)
        return self._make(node, Operation.ADD, quantized_operands(*operands))

    def _plugin(self, node: onnx.NodeProto) -> Found | None:
        """Its float activations are quantized where it reads and where it makes them; its constants are not."""
        operands = tuple(
            index
            for index, name in enumerate(node.input)
            if self._types.get(name) == FLOAT and name not in self._constants
        )
        outputs = tuple(index for index, name in enumerate(node.output) if self._types.get(name) == FLOAT)
        if not operands:
            self._skip(node.name, f"the plugin {operator_of(node)} reads no float32 activation")
            return None
        found = self._make(node, Operation.PLUGIN, operands)
        if found is None:
            return None
        behind = tuple(output_edge(node.name, index) for index in outputs)
        layer = found.layer.model_copy(update={"activations": (*found.layer.activations, *behind)})
        quantized = tuple(index for index in outputs if node.output[index] not in self._given_out)
        return replace(found, layer=layer, outputs=outputs, quantized_outputs=quantized)

    def _operand(self, name: str) -> Operand:
        current: str | None = name
        while current is not None and self._readers[current] == 1:
            maker = self._makers.get(current)
            if maker is None:
                break
            if operator_of(maker) in WEIGHTED:
                return Operand(self._roots_of(name), self._order[maker.name])
            current = self._looked_through(maker)
        return Operand(self._roots_of(name), None)

    def _looked_through(self, node: onnx.NodeProto) -> str | None:
        """The input of a batch norm or a bias addition; None for anything else."""
        if operator_of(node) == "BatchNormalization":
            return str(node.input[0])
        if operator_of(node) == "Add" and node.name not in self._residual:
            free = [name for name in node.input if name not in self._constants]
            return free[0] if len(free) == 1 else None
        return None

    def _roots_of(self, name: str) -> frozenset[str]:
        # iterative: a long chain of additions would exhaust Python's stack
        stack = [name]
        while stack:
            current = stack[-1]
            inputs = self._walked_inputs(current)
            pending = [each for each in inputs if each not in self._roots]
            if pending:
                stack.extend(pending)
                continue
            roots = frozenset[str]().union(*(self._roots[each] for each in inputs))
            self._roots[current] = roots or frozenset({current})
            stack.pop()
        return self._roots[name]

    def _walked_inputs(self, name: str) -> list[str]:
        node = self._makers.get(name)
        if node is None or node.name in self._residual:
            return []
        if operator_of(node) not in ELEMENTWISE:
            return []
        return [each for each in node.input if each and each not in self._constants]

    def _make(
        self,
        node: onnx.NodeProto,
        operation: Operation,
        operands: tuple[int, ...],
        *,
        weight: tuple[int, Array, int | None] | None = None,
    ) -> Found | None:
        source = self._constants.source(node.input[weight[0]]) if weight else None
        value = weight[1] if weight else None
        types = {self._types.get(node.input[index], FLOAT) for index in operands}
        if types != {FLOAT} or (value is not None and value.dtype != np.float32):
            self._skip(node.name, "it does not compute in float32")
            return None
        output = self._shapes.get(node.output[0])
        sizes = concrete(output)
        layer = Layer(
            id=node.name,
            name=self._name(node, operation, source),
            op=operation,
            activations=tuple(f"{node.name}:{index}" for index in operands),
            weight=source,
            weight_shape=tuple(value.shape) if value is not None else None,
            output_shape=tuple(sizes[1:]) if sizes is not None else None,
            macs=self._macs(node, operation),
            weight_bytes=4 * value.size if value is not None else 0,
        )
        return Found(layer, node.name, operands, weight)

    def _name(self, node: onnx.NodeProto, operation: Operation, source: str | None) -> str:
        if source is not None and source.endswith((".weight", "_weight")):
            return self._names.of_weighted(source[: -len(".weight")] or node.name)
        path = module_scope(node)
        if path is None:
            return self._names.of_weighted(node.name)
        if source is not None:
            return self._names.of_weighted(path or node.name)
        return self._names.of_unweighted(path, operation)

    def _macs(self, node: onnx.NodeProto, operation: Operation) -> int | None:
        if operation in (Operation.ADD, Operation.AVERAGE_POOL):
            return 0
        if operation is Operation.PLUGIN:  # nobody knows
            return None
        output = concrete(self._shapes.get(node.output[0]))
        first, second = (self._sizes(name) for name in node.input[:2])
        if output is None or first is None or second is None:
            return None
        if operation is Operation.CONV:
            return prod(output) * prod(second[1:]) // self._batch
        if operation is Operation.CONV_TRANSPOSE:
            return prod(first) * prod(second[1:]) // self._batch
        inner = first[0] if _attribute(node, "transA", 0) else first[-1]
        return prod(output) * inner // self._batch

    def _sizes(self, name: str) -> list[int] | None:
        value = self._constants.value(name)
        return list(value.shape) if value is not None else concrete(self._shapes.get(name))


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for each in node.attribute:
        if each.name == name:
            return onnx.helper.get_attribute_value(each)
    return default
