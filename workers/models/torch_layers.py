"""Finds the layers of a torch graph: quantizable operations with their quantized operands, names and costs."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx

from service.domain.layers import Layer, Operation, SkippedOperation
from workers.models.names import Names
from workers.models.residual import Operand, is_residual, quantized_operands
from workers.models.torch_batch_norm import WEIGHT_ATTRIBUTE
from workers.models.torch_export import TorchProgram, attribute, module_path

aten = torch.ops.aten

CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
}
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
PRODUCTS = {aten.matmul.default, aten.bmm.default, aten.mm.default}
ADDITIONS = {aten.add.Tensor, aten.add_.Tensor}
POOLS = {
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
}
# views of a constant that keep it a constant
VIEWS = {aten.t.default, aten.transpose.int, aten.permute.default, aten.detach.default, aten.contiguous.default}
NORMS = {aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default}
ELEMENTWISE_NAMES = (
    "add add_ sub sub_ mul mul_ div div_ pow neg exp erf tanh sigmoid relu relu_ gelu silu silu_ hardtanh hardtanh_ "
    "hardswish hardswish_ hardsigmoid leaky_relu leaky_relu_ clamp clamp_ clamp_min sqrt rsqrt abs dropout to "
    "contiguous detach clone"
)
ELEMENTWISE = frozenset(ELEMENTWISE_NAMES.split())


@dataclass(frozen=True)
class Found:
    """A layer and where it stands in the graph. ``operands``: indices of the quantized activation arguments.

    ``weight``: index of the weight's argument and the axis of its output channels.
    """

    layer: Layer
    node: fx.Node
    operands: tuple[int, ...]
    weight: tuple[int, int] | None = None


class LayerFinder:
    """Walks a program once and lists its layers in topological order."""

    def __init__(self, program: TorchProgram) -> None:
        self._module = program.module
        self._batch = program.batch_size or 1
        self._order = {node: index for index, node in enumerate(program.module.graph.nodes)}
        self._names = Names()
        self._roots: dict[fx.Node, frozenset[fx.Node]] = {}
        self._weighted: set[fx.Node] = set()
        self._residual: set[fx.Node] = set()
        self.skipped: list[SkippedOperation] = []

    def find(self) -> list[Found]:
        """All layers."""
        found = []
        for node in self._module.graph.nodes:
            each = self._layer(node) if node.op == "call_function" else None
            if each is not None:
                found.append(each)
        return found

    def _layer(self, node: fx.Node) -> Found | None:
        target = node.target
        if target in CONVOLUTIONS:
            return self._with_weight(node, Operation.CONV, axis=0)
        if target in TRANSPOSED:
            return self._with_weight(node, Operation.CONV_TRANSPOSE, axis=1)
        if target is aten.convolution.default:
            transposed = bool(node.args[6])
            operation = Operation.CONV_TRANSPOSE if transposed else Operation.CONV
            return self._with_weight(node, operation, axis=1 if transposed else 0)
        if target is aten.linear.default:
            return self._with_weight(node, Operation.LINEAR, axis=0)
        if target is aten.addmm.default:
            return self._with_weight(node, Operation.LINEAR, axis=1, first=1)
        if target in PRODUCTS:
            return self._product(node)
        if target in ADDITIONS:
            return self._addition(node)
        if target in POOLS:
            return self._make(node, Operation.AVERAGE_POOL, (0,))
        if target is aten.scaled_dot_product_attention.default:
            reason = "grouped-query attention is not written out into its products"
            self.skipped.append(SkippedOperation(id=node.name, name=module_path(node), reason=reason))
        return None

    def _with_weight(self, node: fx.Node, operation: Operation, *, axis: int, first: int = 0) -> Found | None:
        weight = node.args[first + 1]
        self._weighted.add(node)
        if self._is_constant(weight):
            return self._make(node, operation, (first,), weight=(first + 1, axis))
        return self._make(node, operation, (first, first + 1))

    def _product(self, node: fx.Node) -> Found | None:
        left, right = (self._is_constant(each) for each in node.args[:2])
        if left and right:
            return None
        self._weighted.add(node)
        if right:
            return self._make(node, Operation.LINEAR, (0,), weight=(1, -1))
        if left:
            return self._make(node, Operation.LINEAR, (1,), weight=(0, -2))
        return self._make(node, Operation.MATMUL, (0, 1))

    def _addition(self, node: fx.Node) -> Found | None:
        first, second = node.args[:2]
        if not (isinstance(first, fx.Node) and isinstance(second, fx.Node)) or self._is_constant(first):
            return None
        if self._is_constant(second) or _shape(first) != _shape(second) or not _is_floating(first):
            return None
        operands = [self._operand(each) for each in (first, second)]
        if not is_residual(*operands):
            return None
        self._residual.add(node)
        return self._make(node, Operation.ADD, quantized_operands(*operands))

    def _operand(self, node: fx.Node) -> Operand:
        maker: fx.Node | None = node
        while maker is not None and len(maker.users) == 1 and maker not in self._weighted:
            maker = self._looked_through(maker)
        fused = maker is not None and maker in self._weighted and len(maker.users) == 1
        return Operand(self._roots_of(node), self._order[maker] if fused and maker is not None else None)

    def _looked_through(self, node: fx.Node) -> fx.Node | None:
        """The input of a batch norm or a bias addition; None for anything else."""
        if node.target in NORMS or "getitem" in str(node.target):
            return node.args[0] if isinstance(node.args[0], fx.Node) else None
        if node.target in ADDITIONS and node not in self._residual:
            first, second = node.args[:2]
            if isinstance(first, fx.Node) and self._is_constant(second):
                return first
        return None

    def _roots_of(self, node: fx.Node) -> frozenset[fx.Node]:
        # iterative: a long chain of additions would exhaust Python's stack
        stack = [node]
        while stack:
            current = stack[-1]
            inputs = self._walked_inputs(current)
            pending = [each for each in inputs if each not in self._roots]
            if pending:
                stack.extend(pending)
                continue
            roots = frozenset[fx.Node]().union(*(self._roots[each] for each in inputs))
            self._roots[current] = roots or frozenset({current})
            stack.pop()
        return self._roots[node]

    def _walked_inputs(self, node: fx.Node) -> list[fx.Node]:
        name = str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""
        if node.op != "call_function" or name not in ELEMENTWISE or node in self._residual or node in self._weighted:
            return []
        return [each for each in node.all_input_nodes if not self._is_constant(each)]

    def _is_constant(self, value: Any) -> bool:
        while isinstance(value, fx.Node) and value.target in VIEWS:
            value = value.args[0]
        return not isinstance(value, fx.Node) or value.op == "get_attr"

    def _make(
        self, node: fx.Node, operation: Operation, operands: tuple[int, ...], *, weight: tuple[int, int] | None = None
    ) -> Found:
        path = module_path(node)
        attribute_name = self._weight_attribute(node, weight)
        tensor = _value_of(node.args[weight[0]]) if weight else None
        if attribute_name is not None and attribute_name.endswith(("_weight", ".weight")):
            name = self._names.of_weighted(attribute_name[: -len(".weight")])
        elif weight is not None:
            name = self._names.of_weighted(path or node.name)
        else:
            name = self._names.of_unweighted(path, operation)
        layer = Layer(
            id=node.name,
            name=name,
            op=operation,
            activations=tuple(f"{node.name}:{index}" for index in operands),
            weight=attribute_name,
            weight_shape=tuple(int(size) for size in tensor.shape) if tensor is not None else None,
            output_shape=_per_sample(node),
            macs=self._macs(node, operation, tensor),
            weight_bytes=4 * tensor.numel() if tensor is not None else 0,
        )
        return Found(layer, node, operands, weight)

    def _weight_attribute(self, node: fx.Node, weight: tuple[int, int] | None) -> str | None:
        if weight is None:
            return None
        if WEIGHT_ATTRIBUTE in node.meta:
            return str(node.meta[WEIGHT_ATTRIBUTE])
        value = node.args[weight[0]]
        while isinstance(value, fx.Node) and value.op != "get_attr":
            value = value.args[0]
        return str(value.target) if isinstance(value, fx.Node) else None

    def _macs(self, node: fx.Node, operation: Operation, weight: torch.Tensor | None) -> int | None:
        if operation in (Operation.ADD, Operation.AVERAGE_POOL):
            return 0
        output, data = _sizes(node), _sizes(node.all_input_nodes[0])
        if output is None or data is None:
            return None
        if operation is Operation.CONV and weight is not None:
            return prod(output) * prod(weight.shape[1:]) // self._batch
        if operation is Operation.CONV_TRANSPOSE and weight is not None:
            return prod(data) * prod(weight.shape[1:]) // self._batch
        first = node.args[1] if node.target is aten.addmm.default else node.args[0]
        inner = _sizes(first) if isinstance(first, fx.Node) else None
        return prod(output) * inner[-1] // self._batch if inner else None


def weight_value(module: fx.GraphModule, node: Any) -> torch.Tensor:
    """The constant that a chain of views over a get_attr node stands for."""
    if node.op == "get_attr":
        found = attribute(module, str(node.target))
        assert isinstance(found, torch.Tensor)
        return found.detach()
    base = weight_value(module, node.args[0])
    result = node.target(base, *node.args[1:], **node.kwargs)
    assert isinstance(result, torch.Tensor)
    return result


def _value_of(node: Any) -> torch.Tensor:
    module = node.graph.owning_module
    return weight_value(module, node)


def _shape(node: fx.Node) -> tuple[str, ...]:
    value = node.meta.get("val")
    return tuple(str(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()


def _is_floating(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point


def _sizes(node: fx.Node) -> list[int] | None:
    """The shape with the free batch as 1; None where a shape is unknown."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    sizes = []
    for size in value.shape:
        if isinstance(size, int):
            sizes.append(size)
        else:
            expression = size.node.expr
            sizes.append(int(expression.subs(dict.fromkeys(expression.free_symbols, 1))))
    return sizes


def _per_sample(node: fx.Node) -> tuple[int, ...] | None:
    sizes = _sizes(node)
    return tuple(sizes[1:]) if sizes is not None else None
