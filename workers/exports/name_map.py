"""The names of each layer: its own, the module's in torch, the node's in ONNX. Matched exactly, or not at all."""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from service.domain.layers import Layer
from workers.exports.torch_modules import module_of
from workers.exports.torch_to_onnx import Exported, NotExported

FILE = "names.json"
SCHEMA_VERSION = 1


def of_onnx(layers: Sequence[Layer], nodes: Collection[str]) -> dict[str, Any]:
    """The names in an ONNX model. ``nodes``: the node names that stand in its file once."""
    return _document([_entry(each, each.id if each.id in nodes else None) for each in layers])


def of_torch(layers: Sequence[Layer], exported: Exported | NotExported) -> dict[str, Any]:
    """The names in a torch.export model, and those of the nodes that its ONNX export has."""
    if isinstance(exported, NotExported):
        return _document([_entry(each, None) for each in layers], reason=exported.reason)
    found = matched(layers, exported.layers)
    taken = set(found.values())
    return _document(
        [_entry(each, found.get(each.id)) for each in layers],
        exported_by={"call": "torch.onnx.export(program, dynamo=True)", "versions": exported.versions},
        nodes_without_layer=[each.id for each in exported.layers if each.id not in taken],
    )


def matched(torch_layers: Sequence[Layer], onnx_layers: Sequence[Layer]) -> dict[str, str]:
    """Torch layer's id → ONNX layer's id, where both are the same operation under the same name.

    Names come from weights and module paths. Where one module holds several operations of a kind (``matmul``,
    ``matmul_1``), only their order tells them apart: they are matched where both graphs hold equally many.
    """
    nodes = {(each.name, each.op): each for each in onnx_layers}
    alike = _count(torch_layers), _count(onnx_layers)
    found = {}
    for layer in torch_layers:
        node = nodes.get((layer.name, layer.op))
        if node is not None and _same_weight(layer, node) and alike[0][_kind(layer)] == alike[1][_kind(layer)]:
            found[layer.id] = node.id
    return found


def to_json(document: dict[str, Any]) -> bytes:
    """The document as JSON bytes."""
    return (json.dumps(document, indent=1) + "\n").encode()


def _same_weight(layer: Layer, node: Layer) -> bool:
    """Whether both have a weight of the same sizes, or none; exporters may transpose it and lose its name."""
    return sorted(layer.weight_shape or ()) == sorted(node.weight_shape or ())


def _kind(layer: Layer) -> tuple[str, str]:
    """Operations that share it differ in name by a count alone."""
    head, _, tail = layer.name.rpartition("_")
    return (head if head and tail.isdecimal() else layer.name), layer.op.value


def _count(layers: Sequence[Layer]) -> Counter[tuple[str, str]]:
    return Counter(map(_kind, layers))


def _entry(layer: Layer, node: str | None) -> dict[str, Any]:
    return {
        "id": layer.id,
        "name": layer.name,
        "op": layer.op.value,
        "weight": layer.weight,
        "module": module_of(layer),
        "onnx_node": node,
    }


def _document(
    entries: list[dict[str, Any]],
    *,
    exported_by: dict[str, Any] | None = None,
    nodes_without_layer: Sequence[str] = (),
    reason: str | None = None,
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "exported_by": exported_by,
        "no_onnx_nodes": reason,
        "layers": entries,
        "layers_without_node": [each["id"] for each in entries if each["onnx_node"] is None],
        "nodes_without_layer": list(nodes_without_layer),
    }
