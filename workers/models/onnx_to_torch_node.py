"""One ONNX node as its conversion sees it, and what a rule makes of it: a call of a function of torch tensors.

A rule is a function from ``Site`` to ``Made``. What is called takes the node's inputs first, in their order, so that
input i of a layer is argument i of the call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from torch import fx

from service.domain.errors import InvalidInput
from service.inspection.formats import quoted

Value = fx.Node | torch.Tensor
"""An ONNX tensor: one that the graph computes, or a constant."""

Integers = Sequence[int] | torch.Tensor
"""Sizes, axes or indices: written in the model, or computed by it."""


@dataclass(frozen=True)
class Made:
    """The call that a node becomes. ``args`` may hold values. ``several``: the function gives a tuple of results."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    several: bool = False


@dataclass(frozen=True)
class Site:
    """A node with its input values, None where an optional one is left out."""

    node: onnx.NodeProto
    inputs: tuple[Value | None, ...]

    def value(self, index: int) -> Value | None:
        """An input that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def integers(self, index: int) -> list[int] | fx.Node | None:
        """An input of sizes, axes or indices: written out where it is constant."""
        value = self.value(index)
        return integers_of(value) if isinstance(value, torch.Tensor) else value

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value, text decoded."""
        for each in self.node.attribute:
            if each.name == name:
                value = onnx.helper.get_attribute_value(each)
                return value.decode(errors="replace") if isinstance(value, bytes) else value
        return default

    def only(self, name: str, right: Any) -> None:
        """Refuse any other value of an attribute."""
        found = self.attribute(name, right)
        if found != right:
            raise refusal(self.node, f"with {name} = {quoted(str(found))} is not written out")


Rule = Callable[[Site], Made]


def plain(function: Callable[..., Any]) -> Rule:
    """The rule for a function that takes the node's inputs and nothing else."""
    return lambda site: Made(function, site.inputs)


def refusal(node: onnx.NodeProto, reason: str) -> InvalidInput:
    """Why a model cannot be probed, with the node that is to blame."""
    operator = node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}::{node.op_type}"
    return InvalidInput(
        f"method: probe runs an ONNX model as a torch graph, and operator {operator} (node {quoted(node.name)}) "
        f"{reason}; measure this model with method: exact",
        field="method",
    )


def integers_of(value: Integers) -> list[int]:
    """The numbers, a scalar as one."""
    if isinstance(value, torch.Tensor):
        return [int(each) for each in value.reshape(-1).tolist()]
    return list(value)
