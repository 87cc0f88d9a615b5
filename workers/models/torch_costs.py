"""Shapes of a torch graph's tensors, and what a layer costs: multiply-accumulates per sample."""

from math import prod

import torch
from torch import fx

from service.domain.layers import Operation


def symbolic_shape(node: fx.Node) -> tuple[str, ...]:
    """The shape as text, comparable where sizes are symbols."""
    value = node.meta.get("val")
    return tuple(str(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()


def is_floating(node: fx.Node) -> bool:
    """Whether a node is a floating-point tensor."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point


def sizes(node: fx.Node) -> list[int] | None:
    """The shape with every free size as 1; None where the shape is unknown."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    found = []
    for size in value.shape:
        if isinstance(size, int):
            found.append(size)
        else:
            expression = size.node.expr
            found.append(int(expression.subs(dict.fromkeys(expression.free_symbols, 1))))
    return found


def per_sample(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of one sample."""
    found = sizes(node)
    return tuple(found[1:]) if found is not None else None


def macs(node: fx.Node, operation: Operation, *, weight: torch.Tensor | None, batch: int, first: int) -> int | None:
    """Multiply-accumulates per sample, None where a shape is unknown; ``first``: the left operand's argument."""
    if operation in (Operation.ADD, Operation.AVERAGE_POOL):
        return 0
    left = node.args[first]
    output, data = sizes(node), sizes(left) if isinstance(left, fx.Node) else None
    if output is None:
        return None
    if operation is Operation.CONV and weight is not None:
        return prod(output) * prod(weight.shape[1:]) // batch
    if data is None:
        return None
    if operation is Operation.CONV_TRANSPOSE and weight is not None:
        return prod(data) * prod(weight.shape[1:]) // batch
    return prod(output) * data[-1] // batch
