"""Whether variants of a torch graph may run stacked along the sample axis, and the sizes in the graph when they do."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx


class Stacking:
    """What the symbolic shapes of an exported graph say. ``reason``: why nothing may be stacked, None where it may.

    Shapes cannot show everything (a cumulative sum along the sample axis keeps its shape), so that the tree also
    compares a stacked run with a plain one before it relies on this.
    """

    def __init__(self, nodes: Sequence[fx.Node]) -> None:
        self._symbol: Any = None
        self._sizes: dict[fx.Node, Any] = {}
        self._inputs: list[tuple[fx.Node, Any]] = []
        self.stackable: set[fx.Node] = set()
        self.reason = self._find_symbol(nodes) or next(filter(None, map(self._look_at, nodes)), None)

    def _find_symbol(self, nodes: Sequence[fx.Node]) -> str | None:
        for node in nodes:
            value = node.meta.get("val")
            if node.op != "placeholder" or not isinstance(value, torch.Tensor):
                continue
            self._inputs.append((node, value))
            first = _expression(value.shape[0]) if value.ndim else None
            if first is None or not first.is_Symbol:
                return f"input {node.name} has no free batch size"
            if self._symbol is not None and first != self._symbol:
                return "the inputs have different batch sizes"
            self._symbol = first
        return None

    def _look_at(self, node: fx.Node) -> str | None:
        if node.op == "get_attr":
            return None
        value = node.meta.get("val")
        expression = _expression(value)
        if expression is not None:
            self._sizes[node] = expression
            return None
        if isinstance(value, bool | int | float):
            return None
        depends = any(each in self.stackable or each in self._sizes for each in node.all_input_nodes)
        if node.op != "placeholder" and not depends:
            return None  # a constant
        tensors = [each for each in (value if isinstance(value, list | tuple) else [value]) if each is not None]
        if not tensors or not all(isinstance(each, torch.Tensor) for each in tensors):
            return f"the shape of {node.name} is not known"
        first = {self._samples_first(each) for each in tensors}
        if first == {True}:
            self.stackable.add(node)
            return None
        if first != {False}:
            return f"the batch is not the first axis of {node.name}"
        if any(each in self.stackable for each in node.all_input_nodes):
            return f"{node.name} mixes samples"
        return None

    def _samples_first(self, tensor: Any) -> bool | None:
        """None where the batch hides in another axis, or is not simply a multiple along the first."""
        holding = [index for index, size in enumerate(tensor.shape) if self._symbol in _symbols(size)]
        if not holding:
            return False
        multiple = _expression(tensor.shape[0]) / self._symbol if holding == [0] else None
        return True if multiple is not None and multiple.is_Integer else None

    def is_size(self, node: fx.Node) -> bool:
        """Whether the node gives a size that is derived from the inputs' shapes."""
        return node in self._sizes

    def sizes(self, inputs: Mapping[str, torch.Tensor], stack: int) -> dict[fx.Node, int]:
        """Every size in the graph when ``stack`` variants of these inputs run in one."""
        bound: dict[Any, int] = {}
        for node, value in self._inputs:
            actual = inputs[str(node.target)].shape
            for size, length in zip(value.shape, actual, strict=True):
                expression = _expression(size)
                if expression is not None and expression.is_Symbol:
                    bound[expression] = length
        bound[self._symbol] *= stack
        return {node: int(expression.subs(bound)) for node, expression in self._sizes.items()}


def _expression(value: Any) -> Any:
    return value.node.expr if isinstance(value, torch.SymInt) else None


def _symbols(size: Any) -> set[Any]:
    expression = _expression(size)
    return set() if expression is None else set(expression.free_symbols)
