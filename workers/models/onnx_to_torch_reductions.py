"""ONNX's reductions over axes in torch."""

from collections.abc import Callable

import torch
from torch import Tensor

from workers.models.onnx_to_torch_node import Integers, Made, Rule, Site, integers_of

aten = torch.ops.aten


def reduce_mean(x: Tensor, axes: Integers | None, *, keep: bool) -> Tensor:
    """The mean over the axes."""
    return x.mean(_axes(x, axes), keepdim=keep)


def reduce_sum(x: Tensor, axes: Integers | None, *, keep: bool) -> Tensor:
    """The sum over the axes."""
    return x.sum(_axes(x, axes), keepdim=keep, dtype=x.dtype)


def reduce_max(x: Tensor, axes: Integers | None, *, keep: bool) -> Tensor:
    """The largest over the axes."""
    return x.amax(_axes(x, axes), keepdim=keep)


def reduce_min(x: Tensor, axes: Integers | None, *, keep: bool) -> Tensor:
    """The smallest over the axes."""
    return x.amin(_axes(x, axes), keepdim=keep)


def reduce_l1(x: Tensor, axes: Integers | None, *, keep: bool) -> Tensor:
    """The sum of magnitudes over the axes."""
    return x.abs().sum(_axes(x, axes), keepdim=keep)


def reduce_l2(x: Tensor, axes: Integers | None, *, keep: bool) -> Tensor:
    """The Euclidean length over the axes."""
    return x.square().sum(_axes(x, axes), keepdim=keep).sqrt()


def reduce_sum_square(x: Tensor, axes: Integers | None, *, keep: bool) -> Tensor:
    """The sum of squares over the axes."""
    return x.square().sum(_axes(x, axes), keepdim=keep)


def _axes(x: Tensor, axes: Integers | None) -> list[int]:
    """All axes where none are named."""
    return list(range(x.ndim)) if axes is None else integers_of(axes)


def _reduction(function: Callable[..., Tensor]) -> Rule:
    """The axes are an attribute or, from opset 18 on, an input."""

    def rule(site: Site) -> Made:
        axes = site.attribute("axes", None) or site.integers(1)
        if not axes and site.attribute("noop_with_empty_axes", 0):
            return Made(aten.alias.default, (site.value(0),))
        return Made(function, (site.value(0), axes or None), {"keep": bool(site.attribute("keepdims", 1))})

    return rule


def _arg_max(site: Site) -> Made:
    site.only("select_last_index", 0)
    keep = bool(site.attribute("keepdims", 1))
    return Made(aten.argmax.default, (site.value(0), site.attribute("axis", 0), keep))


REDUCTIONS: dict[str, Rule] = {
    "ArgMax": _arg_max,
    "ReduceL1": _reduction(reduce_l1),
    "ReduceL2": _reduction(reduce_l2),
    "ReduceMax": _reduction(reduce_max),
    "ReduceMean": _reduction(reduce_mean),
    "ReduceMin": _reduction(reduce_min),
    "ReduceSum": _reduction(reduce_sum),
    "ReduceSumSquare": _reduction(reduce_sum_square),
}
