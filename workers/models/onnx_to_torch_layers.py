"""The layers of an ONNX model in the torch graph that it was written out as: the same ones, found by their nodes."""

from collections.abc import Sequence

import torch

from workers.models.onnx_layers import Found as OnnxFound
from workers.models.onnx_to_torch import Converted
from workers.models.torch_layers import Found, Weight


def torch_layers(found: Sequence[OnnxFound], converted: Converted) -> list[Found]:
    """The layers in the order given, under their own ids and edges.

    An input of an ONNX node is the argument at the same place of its call, so that operands keep their numbers. Names
    become the names of modules in Python code, and those of the model may be any text: they are numbered instead.
    """
    return [
        Found(
            layer=each.layer.model_copy(update={"name": f"layer_{number}"}),
            node=converted.nodes[each.node],
            operands=each.operands,
            weight=_weight(each),
        )
        for number, each in enumerate(found)
    ]


def _weight(found: OnnxFound) -> Weight | None:
    if found.weight is None:
        return None
    index, value, axis = found.weight
    return Weight(index, None if axis is None else axis % value.ndim, torch.tensor(value))
