"""ONNX's operators that pick, cut out and pad elements, in torch."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workers.models.onnx_to_torch_node import Integers, Made, Rule, Site, integers_of, refusal

aten = torch.ops.aten

PAD_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def gather(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """The slices at these indices along ``axis``, which gives way to the axes of ``indices``."""
    at = axis % x.ndim
    rows = _counted(indices, x.shape[at]).reshape(-1)
    return x.index_select(at, rows).reshape(*x.shape[:at], *indices.shape, *x.shape[at + 1 :])


def gather_elements(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """An element for each index, from its own line along ``axis``."""
    return torch.gather(x, axis, _counted(indices, x.shape[axis]))


def cut_out(x: Tensor, starts: Integers, ends: Integers, axes: Integers | None, steps: Integers | None) -> Tensor:
    """Slice: Python's own slices, one for each axis named (the first ones where none are)."""
    begin, end = integers_of(starts), integers_of(ends)
    places = range(len(begin)) if axes is None else integers_of(axes)
    strides = [1] * len(begin) if steps is None else integers_of(steps)
    for place, *bounds in zip(places, begin, end, strides, strict=True):
        taken = range(*slice(*bounds).indices(x.shape[place]))
        if taken.step > 0:
            x = aten.slice.Tensor(x, place, taken.start, max(taken.start, taken.stop), taken.step)
        else:  # torch knows no steps backwards
            x = x.index_select(place, torch.tensor(list(taken), dtype=torch.int64, device=x.device))
    return x


def pad_constant(x: Tensor, pads: Integers, value: Tensor | None, axes: Integers | None) -> Tensor:
    """Pad with one value, zero where none is given."""
    sides = _sides(x, pads, axes)
    pairs = [each for place in reversed(range(x.ndim)) for each in sides.get(place, (0, 0))]
    return functional.pad(x, pairs, value=0.0 if value is None else value.item())


def pad_mirrored(x: Tensor, pads: Integers, axes: Integers | None, mode: str) -> Tensor:
    """Pad with elements of the tensor. ``mode``: reflect, edge or wrap, as NumPy has them."""
    for place, (before, behind) in _sides(x, pads, axes).items():
        if before or behind:
            taken = np.pad(np.arange(x.shape[place]), (before, behind), mode=PAD_MODES[mode])  # type: ignore[call-overload]
            x = x.index_select(place, torch.from_numpy(taken).to(x.device))
    return x


def triangle(x: Tensor, diagonal: Integers | None, *, upper: bool) -> Tensor:
    """What lies on and above, or below, a diagonal."""
    offset = 0 if diagonal is None else integers_of(diagonal)[0]
    return x.triu(offset) if upper else x.tril(offset)


def number_range(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    """Numbers from ``start`` on, below ``limit``, of the type and at the place of ``start``."""
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype, device=start.device)


def _counted(indices: Tensor, size: int) -> Tensor:
    """Negative indices count from the end."""
    return torch.where(indices < 0, indices + size, indices).to(torch.int64)


def _sides(x: Tensor, pads: Integers, axes: Integers | None) -> dict[int, tuple[int, int]]:
    """Axis → elements before and behind."""
    amounts = integers_of(pads)
    places = list(range(x.ndim)) if axes is None else [each % x.ndim for each in integers_of(axes)]
    half = len(amounts) // 2
    return dict(zip(places, zip(amounts[:half], amounts[half:], strict=True), strict=True))


def _pad(site: Site) -> Made:
    mode = site.attribute("mode", "constant")
    if mode == "constant":
        return Made(pad_constant, (site.value(0), site.integers(1), site.value(2), site.integers(3)))
    if mode not in PAD_MODES:
        site.only("mode", "constant")
    pads = site.integers(1)
    if isinstance(pads, list) and min(pads, default=0) < 0:
        raise refusal(site.node, f"with negative pads in mode {mode} is not written out")
    return Made(pad_mirrored, (site.value(0), pads, site.integers(3), mode))


def _trilu(site: Site) -> Made:
    return Made(triangle, (site.value(0), site.integers(1)), {"upper": bool(site.attribute("upper", 1))})


def _slice(site: Site) -> Made:
    return Made(cut_out, (site.value(0), *(site.integers(index) for index in range(1, 5))))


INDEXING: dict[str, Rule] = {
    "Gather": lambda site: Made(gather, (site.value(0), site.value(1), site.attribute("axis", 0))),
    "GatherElements": lambda site: Made(gather_elements, (site.value(0), site.value(1), site.attribute("axis", 0))),
    "Pad": _pad,
    "Range": lambda site: Made(number_range, site.inputs),
    "Slice": _slice,
    "Trilu": _trilu,
}
