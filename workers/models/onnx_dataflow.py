"""How the layers of an ONNX graph hang together, in the words of ``dataflow``."""

from collections.abc import Sequence
from math import prod

from service.domain.costs import CostModel
from workers.models.dataflow import Step, cost_model
from workers.models.onnx_graph import OnnxProgram
from workers.models.onnx_layers import ELEMENTWISE, Found
from workers.models.onnx_plugins import operator_of
from workers.models.onnx_shapes import concrete, dims

PASSING_NAMES = (
    "BatchNormalization MaxPool Reshape Flatten Transpose Squeeze Unsqueeze Slice Split Gather Pad Resize DepthToSpace "
    "SpaceToDepth"
)
PASSING = ELEMENTWISE | frozenset(PASSING_NAMES.split())


def onnx_costs(program: OnnxProgram, found: Sequence[Found]) -> CostModel:
    """The cost model of a program's layers; nothing is measured."""
    graph = program.skeleton.graph
    constants = {each.name for each in graph.initializer}
    layers = {each.node: each for each in found}
    steps = []
    for node in graph.node:
        layer = layers.get(node.name)
        operator = operator_of(node)
        steps.append(
            Step(
                inputs=tuple(name for name in node.input if name and name not in constants),
                outputs=tuple(node.output),
                layer=layer.layer if layer is not None else None,
                quantized=tuple(node.input[index] for index in layer.operands) if layer is not None else (),
                passes=operator in PASSING,
                joins=operator == "Concat",
            )
        )
    return cost_model(steps, elements_per_sample(program))


def elements_per_sample(program: OnnxProgram) -> dict[str, int]:
    """Tensor → its values per sample, where the file tells."""
    graph = program.skeleton.graph
    shapes = {each.name: concrete(dims(each)) for each in (*graph.value_info, *graph.input, *graph.output)}
    batch = program.batch_size or 1
    return {name: prod(sizes) // batch for name, sizes in shapes.items() if sizes}
