"""Folds batch norms into the layer before them: w' = w·γ/√(σ²+ε), b' = (b − μ)·γ/√(σ²+ε) + β, in float64."""

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

FOLDABLE = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
    aten.linear.default,
}
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
WEIGHT_ATTRIBUTE = "original_weight"
"""Key of a node's meta: the attribute that held its weight before folding."""


def fold_batch_norms(module: fx.GraphModule) -> int:
    """Fold in place every batch norm whose input is a foldable layer that nothing else reads; how many were."""
    count = 0
    for node in list(module.graph.nodes):
        statistics = _statistics(node)
        if statistics is None:
            continue
        producer = node.args[0]
        if isinstance(producer, fx.Node) and _can_take(producer) and _is_constant(statistics):
            _fold(module, producer, node, statistics)
            count += 1
    module.graph.eliminate_dead_code()
    return count


def _statistics(node: fx.Node) -> tuple[Any, ...] | None:
    """Weight, bias, mean, variance, epsilon of a batch norm in inference."""
    if node.target is aten.batch_norm.default:
        return (*node.args[1:5], node.args[7])
    if node.target is aten._native_batch_norm_legit_no_training.default:
        return (*node.args[1:5], node.args[6])
    return None


def _can_take(producer: fx.Node) -> bool:
    if len(producer.users) != 1 or not _is_constant(producer.args[1:2]):
        return False
    if producer.target in TRANSPOSED:
        groups = producer.args[6] if len(producer.args) > 6 else 1
        return bool(groups == 1)
    return producer.target in FOLDABLE


def _is_constant(nodes: tuple[Any, ...]) -> bool:
    return all(each.op == "get_attr" for each in nodes if isinstance(each, fx.Node))


def _fold(module: fx.GraphModule, producer: fx.Node, norm: fx.Node, statistics: tuple[Any, ...]) -> None:
    gamma, beta, mean, variance = (_value(module, each) for each in statistics[:4])
    assert mean is not None
    assert variance is not None
    factor = 1.0 / torch.sqrt(variance + float(statistics[4]))
    if gamma is not None:
        factor = factor * gamma
    weight, bias = (_value(module, each) for each in (*producer.args[1:3], None)[:2])
    assert weight is not None
    axis = 1 if producer.target in TRANSPOSED else 0
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    shift = (0.0 if bias is None else bias) - mean
    new_bias = shift * factor + (0.0 if beta is None else beta)
    weight_node = producer.args[1]
    assert isinstance(weight_node, fx.Node)
    dtype = weight_node.meta["val"].dtype if "val" in weight_node.meta else torch.float32
    with module.graph.inserting_before(producer):
        made = []
        for suffix, value in (("weight", weight * factor.reshape(shape)), ("bias", new_bias)):
            name = f"{producer.name}_folded_{suffix}"
            module.register_buffer(name, value.to(dtype))
            made.append(module.graph.get_attr(name))
    producer.meta.setdefault(WEIGHT_ATTRIBUTE, str(weight_node.target))
    producer.args = (producer.args[0], *made, *producer.args[3:])
    outputs = [user for user in norm.users if "getitem" in str(user.target)] or [norm]
    for output in outputs:
        output.replace_all_uses_with(producer)
        if output is not norm:
            module.graph.erase_node(output)
    module.graph.erase_node(norm)


def _value(module: fx.GraphModule, node: Any) -> torch.Tensor | None:
    if node is None:
        return None
    found: Any = module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    assert isinstance(found, torch.Tensor)
    return found.detach().double()
