"""Finds the layers of a torch graph: quantizable operations with their quantized operands, names and costs."""

from dataclasses import dataclass

import torch
from torch import fx

from service.domain.layers import Layer, Operation, SkippedOperation
from workers.models.names import Names
from workers.models.residual import Operand, is_residual, quantized_operands
from workers.models.torch_batch_norm import CONVOLUTIONS, WEIGHT_ATTRIBUTE, groups_of, is_transposed
from workers.models.torch_constants import Constants, source_of
from workers.models.torch_costs import is_floating, macs, per_sample, symbolic_shape
from workers.models.torch_export import TorchProgram, module_path

aten = torch.ops.aten

PRODUCTS = {aten.matmul.default, aten.bmm.default, aten.mm.default}
ADDITIONS = {aten.add.Tensor, aten.add_.Tensor}
POOLS = {
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
}
NORMS = {aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default}
# what leaves a value as it is
NO_OPERATIONS = {aten.clone.default, aten.contiguous.default, aten.detach.default, aten.alias.default}
ELEMENTWISE_NAMES = (
    "add sub rsub mul div pow square neg exp erf tanh sigmoid relu gelu silu hardtanh relu6 hardswish hardsigmoid "
    "leaky_relu elu selu prelu mish softplus clamp clamp_min clamp_max sqrt rsqrt reciprocal abs "
    "to _to_copy type_as contiguous detach clone alias"
)
ELEMENTWISE = frozenset(ELEMENTWISE_NAMES.split())
# products that this backend does not write out, and what to do about it
UNSUPPORTED = {
    "scaled_dot_product_attention": "grouped-query attention is not written out into its products",
    "_scaled_dot_product_flash_attention_for_cpu": "export without decomposing scaled_dot_product_attention",
    "_native_multi_head_attention": "the fused fast path of attention; export with gradients enabled",
    "_transformer_encoder_layer_fwd": "the fused fast path of an encoder layer; export with gradients enabled",
    "einsum": "einsum is not written out into its products",
    "baddbmm": "a batched product with an addend is not supported",
    "lstm": "recurrent layers are not supported",
    "gru": "recurrent layers are not supported",
    "rnn_tanh": "recurrent layers are not supported",
    "rnn_relu": "recurrent layers are not supported",
}


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant operand: its argument's index, and the axis of its output channels (None: no axis names them)."""

    index: int
    axis: int | None
    value: torch.Tensor


@dataclass(frozen=True, eq=False)
class Found:
    """A layer and where it stands in the graph. ``operands``: indices of the quantized activation arguments.

    ``weight``: the weight as it stands in the file (after folding), at which argument, and its output channels.
    """

    layer: Layer
    node: fx.Node
    operands: tuple[int, ...]
    weight: Weight | None = None


class LayerFinder:
    """Walks a program once and lists its layers in topological order."""

    def __init__(self, program: TorchProgram) -> None:
        self._module = program.module
        self._constants = Constants(program.module)
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
        if target in CONVOLUTIONS or is_transposed(node):
            if not is_transposed(node):
                return self._with_weight(node, Operation.CONV, axis=0)
            # output channels repeat over the groups, so that no one axis names them: one scale is safe
            return self._with_weight(node, Operation.CONV_TRANSPOSE, axis=1 if groups_of(node) == 1 else None)
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
        reason = UNSUPPORTED.get(short_name(node))
        if reason is not None:
            name = self._names.of_weighted(module_path(node) or node.name)
            self.skipped.append(SkippedOperation(id=node.name, name=name, reason=reason))
        return None

    def _with_weight(self, node: fx.Node, operation: Operation, *, axis: int | None, first: int = 0) -> Found | None:
        data, weight = node.args[first], node.args[first + 1]
        if data in self._constants:
            return None
        self._weighted.add(node)
        if weight in self._constants:
            return self._make(node, operation, (first,), weight=self._weight(node, first + 1, axis))
        return self._make(node, operation, (first, first + 1))

    def _product(self, node: fx.Node) -> Found | None:
        left, right = (each in self._constants for each in node.args[:2])
        if (left and right) or not is_floating(node):
            return None
        self._weighted.add(node)
        if right:
            return self._make(node, Operation.LINEAR, (0,), weight=self._weight(node, 1, -1))
        if left:
            return self._make(node, Operation.LINEAR, (1,), weight=self._weight(node, 0, -2))
        return self._make(node, Operation.MATMUL, (0, 1))

    def _weight(self, node: fx.Node, index: int, axis: int | None) -> Weight:
        argument = node.args[index]
        assert isinstance(argument, fx.Node)
        value = self._constants.value(argument)
        if axis is None or value.ndim < 2:  # a vector has no output channels
            return Weight(index, None, value)
        return Weight(index, axis % value.ndim, value)

    def _addition(self, node: fx.Node) -> Found | None:
        first, second = node.args[:2]
        if not (isinstance(first, fx.Node) and isinstance(second, fx.Node)) or first in self._constants:
            return None
        if second in self._constants or symbolic_shape(first) != symbolic_shape(second) or not is_floating(first):
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
        """The input of a batch norm, a bias addition or of nothing done; None for anything else."""
        if node.target in NORMS or node.target in NO_OPERATIONS or "getitem" in str(node.target):
            return node.args[0] if isinstance(node.args[0], fx.Node) else None
        if node.target in ADDITIONS and node not in self._residual:
            first, second = node.args[:2]
            if isinstance(first, fx.Node) and second in self._constants:
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
        if node in self._residual or node in self._weighted or short_name(node).removesuffix("_") not in ELEMENTWISE:
            return []
        return [each for each in node.all_input_nodes if each not in self._constants]

    def _make(
        self, node: fx.Node, operation: Operation, operands: tuple[int, ...], *, weight: Weight | None = None
    ) -> Found:
        source = (node.meta.get(WEIGHT_ATTRIBUTE) or source_of(node.args[weight.index])) if weight else None
        value = weight.value if weight else None
        layer = Layer(
            id=node.name,
            name=self._name(node, operation, source),
            op=operation,
            activations=tuple(f"{node.name}:{index}" for index in operands),
            weight=source,
            weight_shape=tuple(value.shape) if value is not None else None,
            output_shape=per_sample(node),
            macs=macs(
                node,
                operation,
                weight=value,
                batch=self._batch,
                first=1 if node.target is aten.addmm.default else 0,
            ),
            weight_bytes=4 * value.numel() if value is not None else 0,
        )
        return Found(layer, node, operands, weight)

    def _name(self, node: fx.Node, operation: Operation, source: str | None) -> str:
        path = module_path(node)
        if source is None:
            return self._names.of_unweighted(path, operation)
        if source.endswith((".weight", "_weight")):
            return self._names.of_weighted(source[: -len(".weight")])
        return self._names.of_weighted(path or node.name)


def short_name(node: fx.Node) -> str:
    """``add`` of ``aten.add.Tensor``; "" for what is not an ATen operation."""
    name = str(node.target)
    return name.split(".")[1] if node.op == "call_function" and name.startswith("aten.") else ""
