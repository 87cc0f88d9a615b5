"""Finds the layers of an ONNX graph: quantizable nodes with their quantized inputs, names and costs."""

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from service.domain.layers import Layer, Operation, SkippedOperation
from workers.models.names import Names
from workers.models.onnx_graph import OnnxProgram
from workers.models.residual import Operand, is_residual, quantized_operands

Array = npt.NDArray[np.generic]

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
POOLS = {"AveragePool", "GlobalAveragePool"}
ELEMENTWISE = frozenset(
    {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Neg",
        "Exp",
        "Erf",
        "Tanh",
        "Sigmoid",
        "Relu",
        "Gelu",
        "LeakyRelu",
        "Elu",
        "Clip",
        "HardSigmoid",
        "HardSwish",
        "Sqrt",
        "Reciprocal",
        "Abs",
        "Softplus",
        "Mish",
        "Selu",
        "PRelu",
        "Identity",
        "Cast",
        "Dropout",
    }
)
CONSTANT_VIEWS = {"Identity", "Transpose"}
SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Found:
    """A layer and its node. ``operands``: indices of the quantized activation inputs.

    ``weight``: index of the constant input, its value, and the axis of its output channels.
    """

    layer: Layer
    node: str
    operands: tuple[int, ...]
    weight: tuple[int, Array, int] | None = None


class LayerFinder:
    """Walks a program once and lists its layers in topological order."""

    def __init__(self, program: OnnxProgram) -> None:
        graph = program.skeleton.graph
        self._graph = graph
        self._weights = program.weights
        self._batch = program.batch_size or 1
        self._inline = {each.name: each for each in graph.initializer if each.name not in program.weights}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._order = {node.name: index for index, node in enumerate(graph.node)}
        self._readers = Counter(name for node in graph.node for name in node.input)
        self._readers.update(each.name for each in graph.output)
        self._shapes = {each.name: _dims(each) for each in (*graph.input, *graph.value_info, *graph.output)}
        self._floats = {
            each.name
            for each in (*graph.input, *graph.value_info, *graph.output)
            if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        }
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
        if any(each.type == onnx.AttributeProto.GRAPH for each in node.attribute):
            self._skip_inner(node)
            return None
        if node.op_type in {"Conv", "ConvTranspose", "Gemm"}:
            return self._with_weight(node)
        if node.op_type == "MatMul":
            return self._product(node)
        if node.op_type == "Add":
            return self._addition(node)
        if node.op_type in POOLS:
            return self._make(node, Operation.AVERAGE_POOL, (0,))
        return None

    def _skip_inner(self, node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            for inner in attribute.g.node:
                if inner.op_type in WEIGHTED | POOLS:
                    reason = f"it is inside the {node.op_type} node {node.name!r}"
                    name = f"{node.name}/{inner.name or inner.op_type}"
                    self.skipped.append(SkippedOperation(id=name, name=name, reason=reason))

    def _with_weight(self, node: onnx.NodeProto) -> Found | None:
        operation = {"Conv": Operation.CONV, "ConvTranspose": Operation.CONV_TRANSPOSE, "Gemm": Operation.LINEAR}
        weight = self.constant(node.input[1])
        if weight is None:
            return self._make(node, operation[node.op_type], (0, 1))
        if self.constant(node.input[0]) is not None:
            return None
        axis = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if _attribute(node, "transB", 0) else 1}[node.op_type]
        return self._make(node, operation[node.op_type], (0,), weight=(1, weight, axis))

    def _product(self, node: onnx.NodeProto) -> Found | None:
        left, right = (self.constant(name) for name in node.input)
        if left is not None and right is not None:
            return None
        if right is not None:
            return self._make(node, Operation.LINEAR, (0,), weight=(1, right, -1))
        if left is not None:
            return self._make(node, Operation.LINEAR, (1,), weight=(0, left, -2))
        return self._make(node, Operation.MATMUL, (0, 1))

    def _addition(self, node: onnx.NodeProto) -> Found | None:
        first, second = node.input
        if self.constant(first) is not None or self.constant(second) is not None:
            return None
        shapes = [self._shapes.get(name) for name in (first, second)]
        operands = [self._operand(name) for name in (first, second)]
        if first not in self._floats or not is_residual(*operands):
            return None
        if None in shapes:
            reason = "the shapes of its operands are not known from the file"
            self.skipped.append(SkippedOperation(id=node.name, name=node.name, reason=reason))
            return None
        if shapes[0] != shapes[1]:
            return None
        self._residual.add(node.name)
        return self._make(node, Operation.ADD, quantized_operands(*operands))

    def _operand(self, name: str) -> Operand:
        current: str | None = name
        while current is not None and self._readers[current] == 1:
            maker = self._makers.get(current)
            if maker is None:
                break
            if maker.op_type in WEIGHTED:
                return Operand(self._roots_of(name), self._order[maker.name])
            current = self._looked_through(maker)
        return Operand(self._roots_of(name), None)

    def _looked_through(self, node: onnx.NodeProto) -> str | None:
        """The input of a batch norm or a bias addition; None for anything else."""
        if node.op_type == "BatchNormalization":
            return str(node.input[0])
        if node.op_type == "Add" and node.name not in self._residual:
            free = [name for name in node.input if self.constant(name) is None]
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
        if node.op_type not in ELEMENTWISE:
            return []
        return [each for each in node.input if each and self.constant(each) is None]

    def constant(self, name: str) -> Array | None:
        """The value of a constant tensor, through Identity and Transpose; None for an activation."""
        if name in self._weights:
            return self._weights[name]
        if name in self._inline:
            return numpy_helper.to_array(self._inline[name])
        maker = self._makers.get(name)
        if maker is None or maker.op_type not in CONSTANT_VIEWS:
            return None
        value = self.constant(maker.input[0])
        if value is None or maker.op_type == "Identity":
            return value
        return np.transpose(value, _attribute(maker, "perm", None))

    def _make(
        self,
        node: onnx.NodeProto,
        operation: Operation,
        operands: tuple[int, ...],
        *,
        weight: tuple[int, Array, int] | None = None,
    ) -> Found:
        source = self._source(node.input[weight[0]]) if weight else None
        value = weight[1] if weight else None
        output = self._shapes.get(node.output[0])
        sizes = _concrete(output)
        layer = Layer(
            id=node.name,
            name=self._name(node, operation, source),
            op=operation,
            activations=tuple(f"{node.name}:{index}" for index in operands),
            weight=source,
            weight_shape=tuple(value.shape) if value is not None else None,
            output_shape=tuple(sizes[1:]) if sizes is not None else None,
            macs=self._macs(node, operation, value),
            weight_bytes=4 * value.size if value is not None else 0,
        )
        return Found(layer, node.name, operands, weight)

    def _source(self, name: str) -> str:
        """The name of the initializer behind views of it."""
        while name in self._makers and name not in self._weights and name not in self._inline:
            name = self._makers[name].input[0]
        return name

    def _name(self, node: onnx.NodeProto, operation: Operation, source: str | None) -> str:
        if source is not None and source.endswith((".weight", "_weight")):
            return self._names.of_weighted(source[: -len(".weight")])
        path = _scope(node)
        if path is None:
            return self._names.of_weighted(node.name)
        if source is not None:
            return self._names.of_weighted(path or node.name)
        return self._names.of_unweighted(path, operation)

    def _macs(self, node: onnx.NodeProto, operation: Operation, weight: Array | None) -> int | None:
        if operation in (Operation.ADD, Operation.AVERAGE_POOL):
            return 0
        output = _concrete(self._shapes.get(node.output[0]))
        data = _concrete(self._shapes.get(node.input[0]))
        if output is None or data is None:
            return None
        if operation is Operation.CONV and weight is not None:
            return prod(output) * prod(weight.shape[1:]) // self._batch
        if operation is Operation.CONV_TRANSPOSE and weight is not None:
            return prod(data) * prod(weight.shape[1:]) // self._batch
        inner = data[0] if _attribute(node, "transA", 0) else data[-1]
        return prod(output) * inner // self._batch


def _dims(value: onnx.ValueInfoProto) -> tuple[int | str, ...] | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    dims = [each.dim_value if each.HasField("dim_value") else each.dim_param for each in kind.shape.dim]
    return None if any(each == "" for each in dims) else tuple(dims)


def _concrete(dims: Sequence[int | str] | None) -> list[int] | None:
    """The sizes with symbols as 1; None where the shape is unknown."""
    return None if dims is None else [each if isinstance(each, int) else 1 for each in dims]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for each in node.attribute:
        if each.name == name:
            return onnx.helper.get_attribute_value(each)
    return default


def _scope(node: onnx.NodeProto) -> str | None:
    """The module path that the exporter noted ("" for the top); None where it noted nothing readable."""
    text = next((each.value for each in node.metadata_props if each.key == SCOPES), None)
    if text is None or len(text) > 10_000:
        return None
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(scopes, list) or len(scopes) < 2 or not all(isinstance(each, str) for each in scopes):
        return None
    return str(scopes[-2])
