"""Shapes as an ONNX graph declares them, with sizes that are free or not known."""

import re
from collections.abc import Sequence

import onnx

INFERRED_SYMBOL = "unk__"
"""How shape inference names a size that it could not find out."""


def dims(value: onnx.ValueInfoProto) -> tuple[int | str, ...] | None:
    """Sizes; a symbol where the size is free, "" where nothing is known of it; None where not even the rank is."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(each.dim_value if each.HasField("dim_value") else each.dim_param for each in kind.shape.dim)


def may_be_same(first: tuple[int | str, ...], second: tuple[int | str, ...]) -> bool:
    """Whether two shapes are the same as far as they are known; a size of 1 beside an unknown one is a broadcast."""
    if len(first) != len(second):
        return False
    for pair in zip(first, second, strict=True):
        unknown = any(isinstance(each, str) and (not each or each.startswith(INFERRED_SYMBOL)) for each in pair)
        if pair[0] != pair[1] and (not unknown or 1 in pair):
            return False
    return True


def concrete(dims: Sequence[int | str] | None) -> list[int] | None:
    """The sizes with symbols as 1 (``2*batch`` as 2); None where one is unknown."""
    if dims is None or "" in dims:
        return None
    multiples = [re.fullmatch(r"(\d+)\*\w+", each) if isinstance(each, str) else None for each in dims]
    return [
        each if isinstance(each, int) else int(multiple[1]) if multiple else 1
        for each, multiple in zip(dims, multiples, strict=True)
    ]
