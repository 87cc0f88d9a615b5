"""Windows that slide over the spatial axes, as ONNX writes them down: sizes, steps, and padding on each side."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workers.models.onnx_to_torch_node import Site

Sides = Sequence[int]
"""Padding: what comes before each axis, then what comes behind each."""


class Window(NamedTuple):
    """A tuple, since those are what a graph carries as arguments of its calls.

    ``pads``: None where the output is as large as the input over the stride; an odd element goes behind, or before
    where ``lower``.
    """

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: Sides | None
    lower: bool


def window_of(site: Site, kernel: Sequence[int]) -> Window:
    """A node's window over ``kernel``-sized patches."""
    ones = [1] * len(kernel)
    mode = site.attribute("auto_pad", "NOTSET")
    pads: list[int] | None = [0] * 2 * len(kernel)
    if mode == "NOTSET":
        pads = list(site.attribute("pads", pads or []))
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = None
    elif mode != "VALID":
        site.only("auto_pad", "NOTSET")
    return Window(
        kernel=list(kernel),
        strides=list(site.attribute("strides", ones)),
        dilations=list(site.attribute("dilations", ones)),
        pads=pads,
        lower=mode == "SAME_LOWER",
    )


def sides(x: Tensor, window: Window) -> Sides:
    """The padding for an input of this size."""
    if window.pads is not None:
        return window.pads
    before, behind = [], []
    for size, kernel, stride, dilation in zip(
        x.shape[2:], window.kernel, window.strides, window.dilations, strict=True
    ):
        needed = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
        small, large = needed // 2, needed - needed // 2
        before.append(large if window.lower else small)
        behind.append(small if window.lower else large)
    return [*before, *behind]


def symmetric(pads: Sides) -> list[int] | None:
    """The padding of each axis where both its sides have the same; else None."""
    half = len(pads) // 2
    return list(pads[:half]) if list(pads[:half]) == list(pads[half:]) else None


def padded(x: Tensor, pads: Sides, value: float) -> Tensor:
    """The input, its spatial axes padded (or cut, where negative)."""
    half = len(pads) // 2
    # torch counts axes from the last one
    pairs = [each for axis in reversed(range(half)) for each in (pads[axis], pads[half + axis])]
    return torch.nn.functional.pad(x, pairs, value=value)
