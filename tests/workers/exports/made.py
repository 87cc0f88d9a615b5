"""Layers and decisions made by hand, and names that nobody should have."""

from collections.abc import Sequence
from pathlib import Path

from service.domain.costs import Precision
from service.domain.layers import Layer, Operation
from workers.exports.mixed_precision import MixedPrecision
from workers.models.onnx_graph import read_onnx
from workers.models.onnx_layers import LayerFinder as OnnxLayers
from workers.models.torch_export import read_archive
from workers.models.torch_layers import LayerFinder as TorchLayers

HOSTILE = (
    "a'b",
    'a"b',
    "$(touch owned)",
    "`touch owned`",
    "line\nimport os",
    "end\n'''\n\"\"\"\nraise SystemExit",
    "$names ${warning} $$ {0} %s",
    "back\\slash\\",
    "Größe→層",
    "a,b",
    "a:b",
    "wild*card",
    "[a]?",
    "; rm -rf x #",
)


def layer(name: str, op: Operation = Operation.CONV, **fields: object) -> Layer:
    """A layer of this name, its weight beside it."""
    weight = f"{name}.weight" if op in (Operation.CONV, Operation.CONV_TRANSPOSE, Operation.LINEAR) else None
    values: dict[str, object] = {"id": name, "name": name, "op": op, "activations": (f"{name}:0",), "weight": weight}
    return Layer.model_validate(values | fields)


def mixed(layers: Sequence[Layer], *floating: str, precision: Precision = Precision.FP32) -> MixedPrecision:
    """The decision that keeps the layers of these names in floating point."""
    fallback = frozenset(each.id for each in layers if each.name in floating)
    assert len(fallback) == len(floating)
    return MixedPrecision(tuple(layers), fallback, fallback_precision=precision)


def onnx_layers(path: Path) -> tuple[Layer, ...]:
    """The layers of an ONNX file."""
    return tuple(each.layer for each in OnnxLayers(read_onnx(path, fuse_bn=True)).find())


def torch_layers(path: Path) -> tuple[Layer, ...]:
    """The layers of a torch.export archive."""
    return tuple(each.layer for each in TorchLayers(read_archive(path, fuse_bn=True)).find())
