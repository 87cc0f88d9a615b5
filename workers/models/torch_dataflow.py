"""How the layers of a torch graph hang together, in the words of ``dataflow``."""

from collections.abc import Sequence
from math import prod

from torch import fx

from service.domain.costs import CostModel
from workers.models.dataflow import Step, cost_model
from workers.models.torch_constants import Constants
from workers.models.torch_costs import sizes
from workers.models.torch_export import TorchProgram
from workers.models.torch_layers import ELEMENTWISE, Found, short_name

PASSING_NAMES = (
    "batch_norm max_pool1d max_pool2d max_pool3d max_pool2d_with_indices view reshape flatten _unsafe_view expand "
    "permute transpose t squeeze unsqueeze slice split split_with_sizes chunk select index_select pad "
    "upsample_nearest2d upsample_bilinear2d pixel_shuffle pixel_unshuffle unflatten dropout"
)
PASSING = ELEMENTWISE | frozenset(PASSING_NAMES.split())


def torch_costs(program: TorchProgram, found: Sequence[Found]) -> CostModel:
    """The cost model of a program's layers, before it has quantizers; nothing is measured."""
    constants = Constants(program.module)
    layers = {each.node: each for each in found}
    steps, elements = [], {}
    for node in program.module.graph.nodes:
        if node.op == "output" or node in constants:
            continue
        layer = layers.get(node)
        name = short_name(node).removesuffix("_")
        steps.append(
            Step(
                inputs=tuple(each.name for each in node.all_input_nodes if each not in constants),
                outputs=(node.name,),
                layer=layer.layer if layer is not None else None,
                quantized=_quantized(layer),
                passes=name in PASSING or "getitem" in str(node.target),
                joins=name in ("cat", "concat", "concatenate"),
            )
        )
        shape = sizes(node)
        if shape:
            elements[node.name] = prod(shape) // (program.batch_size or 1)
    return cost_model(steps, elements)


def _quantized(layer: Found | None) -> tuple[str, ...]:
    if layer is None:
        return ()
    arguments = (layer.node.args[index] for index in layer.operands)
    return tuple(each.name for each in arguments if isinstance(each, fx.Node))
