"""ONNX's operators that give a tensor another shape, or find out its shape, in torch."""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor

from workers.models.onnx_to_torch_dtypes import DTYPES, kind_name
from workers.models.onnx_to_torch_node import Integers, Made, Rule, Site, integers_of, refusal

aten = torch.ops.aten


def shape_of(x: Tensor, start: int, end: int | None) -> Tensor:
    """The sizes, int64, beside the tensor itself."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


def size_of(x: Tensor) -> Tensor:
    """How many elements, int64, beside the tensor itself."""
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def reshape(x: Tensor, shape: Integers, *, keep_zeros: bool) -> Tensor:
    """A size of 0 is that of x at the same place, unless ``keep_zeros``."""
    sizes = integers_of(shape)
    return x.reshape([x.shape[at] if size == 0 and not keep_zeros else size for at, size in enumerate(sizes)])


def flatten(x: Tensor, axis: int) -> Tensor:
    """Two axes: what lies before ``axis``, and the rest."""
    at = axis + x.ndim if axis < 0 else axis
    return x.reshape(prod(x.shape[:at]), prod(x.shape[at:]))


def transpose(x: Tensor, order: Sequence[int] | None) -> Tensor:
    """All axes reversed where no order is given."""
    return x.permute(list(reversed(range(x.ndim))) if order is None else list(order))


def squeeze(x: Tensor, axes: Integers | None) -> Tensor:
    """Without these axes of size 1, or without all of them."""
    return x.squeeze() if axes is None else x.squeeze([each % x.ndim for each in integers_of(axes)])


def unsqueeze(x: Tensor, axes: Integers) -> Tensor:
    """With new axes of size 1 at these places of the result."""
    places = integers_of(axes)
    rank = x.ndim + len(places)
    for place in sorted(each % rank for each in places):
        x = x.unsqueeze(place)
    return x


def concatenate(axis: int, *tensors: Tensor) -> Tensor:
    """One behind the other."""
    return torch.cat(tensors, axis)


def split(x: Tensor, sizes: Integers | None, axis: int, parts: int) -> tuple[Tensor, ...]:
    """Parts of these sizes; of equal ones, the last smaller, where none are given."""
    if sizes is None:
        each = -(-x.shape[axis] // parts)
        sizes = [min(each, max(0, x.shape[axis] - each * at)) for at in range(parts)]
    return torch.split(x, integers_of(sizes), axis)


def expand(x: Tensor, shape: Integers) -> Tensor:
    """Broadcast with the shape; a size of 1 in it leaves the tensor's own."""
    return x.broadcast_to(np.broadcast_shapes(tuple(x.shape), tuple(integers_of(shape))))


def constant_of_shape(shape: Tensor, value: float, dtype: torch.dtype) -> Tensor:
    """A tensor of this shape with one value everywhere, beside the shape."""
    return torch.full(integers_of(shape), value, dtype=dtype, device=shape.device)


def tile(x: Tensor, repeats: Integers) -> Tensor:
    """Repeated along each axis."""
    return x.repeat(integers_of(repeats))


def _shape(site: Site) -> Made:
    return Made(shape_of, (site.value(0), site.attribute("start", 0), site.attribute("end", None)))


def _reshape(site: Site) -> Made:
    keep = bool(site.attribute("allowzero", 0))
    return Made(reshape, (site.value(0), site.integers(1)), {"keep_zeros": keep})


def _split(site: Site) -> Made:
    args = (site.value(0), site.integers(1), site.attribute("axis", 0), len(site.node.output))
    return Made(split, args, several=True)


def _constant_of_shape(site: Site) -> Made:
    tensor = site.attribute("value", None)
    if tensor is None:
        return Made(constant_of_shape, (site.value(0), 0.0, torch.float32))
    if tensor.data_type not in DTYPES:
        raise refusal(site.node, f"of {kind_name(tensor.data_type)} is not written out")
    value = numpy_helper.to_array(tensor).reshape(-1)[0].item()
    return Made(constant_of_shape, (site.value(0), value, DTYPES[tensor.data_type]))


SHAPES: dict[str, Rule] = {
    "Concat": lambda site: Made(concatenate, (site.attribute("axis", 0), *site.inputs)),
    "ConstantOfShape": _constant_of_shape,
    "Expand": lambda site: Made(expand, (site.value(0), site.integers(1))),
    "Flatten": lambda site: Made(flatten, (site.value(0), site.attribute("axis", 1))),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda site: Made(size_of, (site.value(0),)),
    "Split": _split,
    "Squeeze": lambda site: Made(squeeze, (site.value(0), site.integers(1))),
    "Tile": lambda site: Made(tile, (site.value(0), site.integers(1))),
    "Transpose": lambda site: Made(transpose, (site.value(0), site.attribute("perm", None))),
    "Unsqueeze": lambda site: Made(unsqueeze, (site.value(0), site.integers(1))),
}
