"""ONNX's weighted operators in torch: convolutions and matrix products. A node is one call, bias and padding within."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workers.models.onnx_to_torch_node import Made, Rule, Site, plain, refusal
from workers.models.onnx_to_torch_windows import Sides, Window, padded, sides, symmetric, window_of

aten = torch.ops.aten


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, window: Window) -> Tensor:
    """Conv: x (N, C, D1 ... Dn), weight (M, C / groups, k1 ... kn)."""
    around = sides(x, window)
    same = symmetric(around)
    if same is None:
        x, same = padded(x, around, 0.0), [0] * len(window.kernel)
    none = [0] * len(window.kernel)
    return torch.convolution(x, weight, bias, list(window.strides), same, list(window.dilations), False, none, groups)


class Transposed(NamedTuple):
    """How a transposed convolution spreads its input. ``pads`` are cut off the result, ``longer`` is added behind."""

    groups: int
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: Sides
    longer: Sequence[int]


def convolve_transposed(x: Tensor, weight: Tensor, bias: Tensor | None, how: Transposed) -> Tensor:
    """ConvTranspose: x (N, C, D1 ... Dn), weight (C, M / groups, k1 ... kn)."""
    same = symmetric(how.pads)
    cut = [0] * len(how.strides) if same is None else same
    made = torch.convolution(
        x, weight, bias, list(how.strides), cut, list(how.dilations), True, list(how.longer), how.groups
    )
    return padded(made, [-each for each in how.pads], 0.0) if same is None else made


class Scaled(NamedTuple):
    """What a Gemm does to its operands: A and B may be transposed, the product and C multiplied."""

    alpha: float
    beta: float
    transpose_a: bool
    transpose_b: bool


def gemm(a: Tensor, b: Tensor, c: Tensor | None, how: Scaled) -> Tensor:
    """The sum alpha · A B + beta · C."""
    product = (a.T if how.transpose_a else a) @ (b.T if how.transpose_b else b)
    product = product if how.alpha == 1.0 else how.alpha * product
    return product if c is None else product + (c if how.beta == 1.0 else how.beta * c)


def _kernel(site: Site) -> list[int]:
    """Of a convolution: as the attribute says, else as the weight is shaped."""
    weight = site.value(1)
    sizes = site.attribute("kernel_shape", list(weight.shape[2:]) if isinstance(weight, Tensor) else [])
    if not sizes:
        raise refusal(site.node, "has a computed weight and no kernel_shape")
    return list(sizes)


def _conv(site: Site) -> Made:
    window = window_of(site, _kernel(site))
    return Made(convolve, (site.value(0), site.value(1), site.value(2), site.attribute("group", 1), window))


def _conv_transpose(site: Site) -> Made:
    window = window_of(site, _kernel(site))
    if window.pads is None:
        site.only("auto_pad", "NOTSET")
    if site.attribute("output_shape", None) is not None:
        raise refusal(site.node, "with output_shape is not written out")
    how = Transposed(
        groups=site.attribute("group", 1),
        strides=window.strides,
        dilations=window.dilations,
        pads=window.pads or [],
        longer=list(site.attribute("output_padding", [0] * len(window.kernel))),
    )
    return Made(convolve_transposed, (site.value(0), site.value(1), site.value(2), how))


def _gemm(site: Site) -> Made:
    how = Scaled(
        alpha=site.attribute("alpha", 1.0),
        beta=site.attribute("beta", 1.0),
        transpose_a=bool(site.attribute("transA", 0)),
        transpose_b=bool(site.attribute("transB", 0)),
    )
    return Made(gemm, (site.value(0), site.value(1), site.value(2), how))


PRODUCTS: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": plain(aten.matmul.default),
}
