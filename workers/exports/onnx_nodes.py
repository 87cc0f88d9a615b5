"""Which layers of an ONNX model another tool can name: those whose node has a name of its own in the file."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import onnx

from service.domain.layers import Layer
from service.inspection.content import is_zip, read_head
from service.inspection.onnx_archive import list_onnx_archive
from service.inspection.zip_listing import list_zip

UNNAMED = "its node has no name of its own in the file"


@dataclass(frozen=True)
class Addressed:
    """Node names, and layers that a tool cannot be told of: (layer's id, reason)."""

    names: tuple[str, ...]
    unnamed: tuple[tuple[str, str], ...]


def addressed(layers: Sequence[Layer], nodes: Collection[str]) -> Addressed:
    """Layers by node name. ``nodes``: the names that stand in the file exactly once."""
    return Addressed(
        names=tuple(each.id for each in layers if each.id in nodes),
        unnamed=tuple((each.id, UNNAMED) for each in layers if each.id not in nodes),
    )


def own_names(path: Path) -> frozenset[str]:
    """The node names that stand exactly once in an ONNX file, or in that of a zip, as it was uploaded.

    Nodes without one get a name of ours when the model is opened, and so do those of functions, which no other tool
    would find in the file.
    """
    if is_zip(read_head(path)):
        archive = list_onnx_archive(list_zip(path))
        with ZipFile(path) as source:
            model = onnx.ModelProto.FromString(source.read(archive.model))
    else:
        model = onnx.load(str(path), load_external_data=False, format="protobuf")
    seen = Counter(node.name for node in model.graph.node)
    return frozenset(name for name, count in seen.items() if name and count == 1)
