"""ONNX's normalisations in torch, as they are at inference, and softmax."""

import torch
from torch import Tensor
from torch.nn import functional

from workers.models.onnx_to_torch_node import Made, Rule, Site, refusal

aten = torch.ops.aten


def batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float) -> Tensor:
    """By the statistics in the model: x (N, C, ...), all others (C,)."""
    return functional.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)


def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float) -> Tensor:
    """Each channel of each sample by its own statistics: x (N, C, ...), scale and bias (C,)."""
    return functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None, *, axis: int, epsilon: float) -> Tensor:
    """Over the axes from ``axis`` on."""
    found = functional.layer_norm(x, x.shape[axis:], eps=epsilon) * scale
    return found if bias is None else found + bias


def _batch_norm(site: Site) -> Made:
    site.only("training_mode", 0)
    return Made(batch_norm, site.inputs, {"epsilon": site.attribute("epsilon", 1e-5)})


def _instance_norm(site: Site) -> Made:
    return Made(instance_norm, site.inputs, {"epsilon": site.attribute("epsilon", 1e-5)})


def _layer_norm(site: Site) -> Made:
    if site.value(1) is None:
        raise refusal(site.node, "without a scale is not written out")
    keywords = {"axis": site.attribute("axis", -1), "epsilon": site.attribute("epsilon", 1e-5)}
    return Made(layer_norm, (site.value(0), site.value(1), site.value(2)), keywords)


NORMS: dict[str, Rule] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": lambda site: Made(aten.log_softmax.int, (site.value(0), site.attribute("axis", -1))),
    "Softmax": lambda site: Made(aten.softmax.int, (site.value(0), site.attribute("axis", -1))),
}
