"""Which additions are residual adds, and which of their operands an engine quantizes. The same for every format.

An Add is a residual add where two activations of the same shape from different places meet. One that only combines
element-wise functions of one tensor (the ``x + 0.044715 x³`` inside a written-out GELU) is not: an engine keeps it
inside a fused element-wise kernel.

TensorRT fuses an Add with the convolution or matrix product that makes one of its operands, which then never leaves
the accumulator: only the other operand, the skip branch, is quantized (TensorRT developer guide, "Q/DQ placement").
Where both operands come from such a layer, the one that runs later is the fused one. Where neither does, both are
quantized.
"""

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Operand:
    """One operand of an addition.

    ``roots``: the tensors that it is an element-wise function of, found by walking up through element-wise
    operations. ``fused_with``: the position in topological order of the weighted layer that makes it, where nothing
    but that layer's bias and batch norm lies between and nobody else reads it; else None.
    """

    roots: frozenset[Hashable]
    fused_with: int | None = None


def is_residual(first: Operand, second: Operand) -> bool:
    """Whether two activations of the same shape meet here from different places."""
    return first.roots != second.roots


def quantized_operands(first: Operand, second: Operand) -> tuple[int, ...]:
    """The indices (0, 1) of the operands that an engine quantizes."""
    if first.fused_with is None and second.fused_with is None:
        return (0, 1)
    if first.fused_with is not None and (second.fused_with is None or first.fused_with > second.fused_with):
        return (1,)
    return (0,)
