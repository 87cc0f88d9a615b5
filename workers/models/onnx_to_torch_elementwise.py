"""ONNX's element-wise operators in torch: arithmetic, activations, comparisons, casts."""

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from workers.models.onnx_to_torch_dtypes import DTYPES, kind_name
from workers.models.onnx_to_torch_node import Made, Rule, Site, plain, refusal

aten = torch.ops.aten


def divide(left: Tensor, right: Tensor) -> Tensor:
    """Whole numbers are divided towards zero."""
    return torch.div(left, right, rounding_mode=None if left.is_floating_point() else "trunc")


def power(base: Tensor, exponent: Tensor) -> Tensor:
    """In the type of the base."""
    return torch.pow(base, exponent).to(base.dtype)


def maximum(*tensors: Tensor) -> Tensor:
    """The largest, element by element."""
    return reduce(torch.maximum, tensors)


def minimum(*tensors: Tensor) -> Tensor:
    """The smallest, element by element."""
    return reduce(torch.minimum, tensors)


def total(*tensors: Tensor) -> Tensor:
    """The sum, element by element."""
    return reduce(torch.add, tensors)


def mean(*tensors: Tensor) -> Tensor:
    """The mean, element by element."""
    return total(*tensors) / len(tensors)


def clip(x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """Between the bounds that are given; the upper one wins where they cross."""
    return x if low is None and high is None else torch.clamp(x, min=low, max=high)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """The slope broadcast to x as NumPy does, which is not how torch's own takes it."""
    return torch.where(x >= 0, x, slope * x)


def selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    """Elu with the slope ``gamma`` for large x."""
    return gamma * functional.elu(x, alpha)


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """The line alpha · x + beta, clipped to [0, 1]."""
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def swish(x: Tensor, alpha: float) -> Tensor:
    """The gated x · sigmoid(alpha · x)."""
    return x * torch.sigmoid(alpha * x)


def gelu(x: Tensor, approximate: str) -> Tensor:
    """``approximate``: none or tanh."""
    return functional.gelu(x, approximate=approximate)


def _clip(site: Site) -> Made:
    return Made(clip, (site.value(0), site.value(1), site.value(2)))


def _gelu(site: Site) -> Made:
    approximate = site.attribute("approximate", "none")
    if approximate not in ("none", "tanh"):
        site.only("approximate", "none")
    return Made(gelu, (site.value(0), approximate))


def _cast(site: Site) -> Made:
    number = site.attribute("to", 0)
    if number not in DTYPES:
        raise refusal(site.node, f"to {kind_name(number)} is not written out")
    return Made(aten.to.dtype, (site.value(0), DTYPES[number]))


def _dropout(site: Site) -> Made:
    training = site.value(2)
    if not (training is None or (isinstance(training, Tensor) and not bool(training.any()))):
        raise refusal(site.node, "in training mode is random")
    return Made(aten.alias.default, (site.value(0),))


def _scaled(function: object, **defaults: float) -> Rule:
    """The rule for a function of x and of attributes that are numbers, in this order."""
    assert callable(function)
    return lambda site: Made(
        function, (site.value(0), *(site.attribute(name, default) for name, default in defaults.items()))
    )


ELEMENTWISE: dict[str, Rule] = {
    "Abs": plain(aten.abs.default),
    "Add": plain(aten.add.Tensor),
    "And": plain(aten.logical_and.default),
    "Cast": _cast,
    "Ceil": plain(aten.ceil.default),
    "Clip": _clip,
    "Cos": plain(aten.cos.default),
    "Div": plain(divide),
    "Dropout": _dropout,
    "Elu": _scaled(aten.elu.default, alpha=1.0),
    "Equal": plain(aten.eq.Tensor),
    "Erf": plain(aten.erf.default),
    "Exp": plain(aten.exp.default),
    "Floor": plain(aten.floor.default),
    "Gelu": _gelu,
    "Greater": plain(aten.gt.Tensor),
    "GreaterOrEqual": plain(aten.ge.Tensor),
    "HardSigmoid": _scaled(hard_sigmoid, alpha=0.2, beta=0.5),
    "HardSwish": plain(aten.hardswish.default),
    "Identity": plain(aten.alias.default),
    "LeakyRelu": _scaled(aten.leaky_relu.default, alpha=0.01),
    "Less": plain(aten.lt.Tensor),
    "LessOrEqual": plain(aten.le.Tensor),
    "Log": plain(aten.log.default),
    "Max": plain(maximum),
    "Mean": plain(mean),
    "Min": plain(minimum),
    "Mish": plain(aten.mish.default),
    "Mul": plain(aten.mul.Tensor),
    "Neg": plain(aten.neg.default),
    "Not": plain(aten.logical_not.default),
    "Or": plain(aten.logical_or.default),
    "PRelu": plain(prelu),
    "Pow": plain(power),
    "Reciprocal": plain(aten.reciprocal.default),
    "Relu": plain(aten.relu.default),
    "Round": plain(aten.round.default),
    "Selu": _scaled(selu, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875),
    "Sigmoid": plain(aten.sigmoid.default),
    "Sign": plain(aten.sign.default),
    "Sin": plain(aten.sin.default),
    "Softplus": plain(aten.softplus.default),
    "Sqrt": plain(aten.sqrt.default),
    "Sub": plain(aten.sub.Tensor),
    "Sum": plain(total),
    "Swish": _scaled(swish, alpha=1.0),
    "Tanh": plain(aten.tanh.default),
    "Where": plain(aten.where.self),
}
