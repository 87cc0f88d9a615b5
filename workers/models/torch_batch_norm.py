"""Folds batch norms into the layer before them: w' = w·γ/√(σ²+ε), b' = (b − μ)·γ/√(σ²+ε) + β, in float64."""

from typing import Any

import torch
from torch import fx

from workers.models.torch_constants import Constants, source_of

aten = torch.ops.aten

CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
    aten.convolution.default,
}
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
WEIGHT_ATTRIBUTE = "original_weight"
"""Key of a node's meta: the attribute that held its weight before folding."""


def fold_batch_norms(module: fx.GraphModule) -> int:
    """Fold in place every batch norm whose input is a foldable layer that nothing else reads; how many were."""
    count = 0
    constants = Constants(module)
    for node in list(module.graph.nodes):
        statistics = _statistics(node)
        producer = node.args[0] if statistics is not None else None
        if not isinstance(producer, fx.Node) or not _can_take(producer):
            continue
        bias = producer.args[2] if len(producer.args) > 2 else None
        parameters = (producer.args[1], bias, *(statistics or ()))
        if all(each in constants for each in parameters):
            _fold(module, producer, node, [_value(constants, each) for each in parameters])
            count += 1
    module.graph.eliminate_dead_code()
    return count


def is_transposed(node: fx.Node) -> bool:
    """Whether a node is a transposed convolution."""
    return node.target in TRANSPOSED or (node.target is aten.convolution.default and node.args[6] is True)


def groups_of(transposed: fx.Node) -> int:
    """The groups of a transposed convolution."""
    index = 8 if transposed.target is aten.convolution.default else 6
    groups = transposed.args[index] if len(transposed.args) > index else 1
    assert isinstance(groups, int)
    return groups


def _statistics(node: fx.Node) -> tuple[Any, ...] | None:
    """Weight, bias, mean, variance, epsilon of a batch norm in inference."""
    if node.target is aten.batch_norm.default:
        return (*node.args[1:5], node.args[7])
    if node.target is aten._native_batch_norm_legit_no_training.default:
        return (*node.args[1:5], node.args[6])
    return None


def _can_take(producer: fx.Node) -> bool:
    if len(producer.users) != 1:
        return False
    if producer.target is aten.linear.default:
        # with more axes than two, the batch norm's channels are not the features
        return bool(producer.meta["val"].ndim == 2)
    if is_transposed(producer):
        return groups_of(producer) == 1
    return producer.target in CONVOLUTIONS


def _fold(module: fx.GraphModule, producer: fx.Node, norm: fx.Node, parameters: list[torch.Tensor | None]) -> None:
    weight, bias, gamma, beta, mean, variance, epsilon = parameters
    assert weight is not None
    assert mean is not None
    assert variance is not None
    assert epsilon is not None
    factor = 1.0 / torch.sqrt(variance + epsilon)
    if gamma is not None:
        factor = factor * gamma
    axis = 1 if is_transposed(producer) else 0
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    shift = -mean if bias is None else bias - mean
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
    producer.meta.setdefault(WEIGHT_ATTRIBUTE, source_of(weight_node))
    producer.args = (producer.args[0], *made, *producer.args[3:])
    outputs = [user for user in norm.users if "getitem" in str(user.target)] or [norm]
    for output in outputs:
        output.replace_all_uses_with(producer)
        if output is not norm:
            module.graph.erase_node(output)
    module.graph.erase_node(norm)


def _value(constants: Constants, parameter: Any) -> torch.Tensor | None:
    if parameter is None:
        return None
    if isinstance(parameter, fx.Node):
        return constants.value(parameter).double()
    return torch.tensor(parameter, dtype=torch.float64)
