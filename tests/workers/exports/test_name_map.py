"""Torch's names beside those in the ONNX model that torch's own exporter makes of the same archive."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from service.domain.layers import Layer, Operation
from tests.workers.exports.made import HOSTILE, layer, onnx_layers, torch_layers
from tests.workers.models import torch_networks as networks
from workers.exports import torch_to_onnx
from workers.exports.name_map import matched, of_onnx, of_torch, to_json
from workers.exports.onnx_nodes import own_names
from workers.exports.torch_to_onnx import Exported, NotExported, exported_layers

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


class Written(nn.Module):
    """Attention written out: linear layers whose weights the exporter transposes, two products, a residual add."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        attended = torch.matmul(torch.softmax(torch.matmul(q, k.transpose(1, 2)), dim=-1), v)
        return x + self.out(attended)  # type: ignore[no-any-return]


def test_every_layer_gets_the_node_that_the_exporter_made_of_it(tmp_path: Path) -> None:
    archive = networks.save(Written(), (torch.randn(2, 5, 8),), tmp_path / "model.pt2")
    layers = torch_layers(archive)
    document = of_torch(layers, exported_layers(archive))
    assert document["no_onnx_nodes"] is None
    assert document["layers_without_node"] == []
    program = torch.onnx.export(torch.export.load(archive), dynamo=True, verbose=False)
    assert program is not None
    types = {node.name: node.op_type for node in program.model_proto.graph.node}
    found = {each["name"]: types[each["onnx_node"]] for each in document["layers"]}
    assert found == {"qkv": "MatMul", "matmul": "MatMul", "matmul_1": "MatMul", "out": "MatMul", "add": "Add"}
    modules = {each["name"]: each["module"] for each in document["layers"]}
    assert modules == {"qkv": "qkv", "matmul": None, "matmul_1": None, "out": "out", "add": None}
    assert set(document["exported_by"]["versions"]) == {"torch", "onnxscript"}


def test_an_archive_that_cannot_be_exported_leaves_the_names_in_torch_and_the_reason(tmp_path: Path) -> None:
    # the exporter takes fused attention with four axes only
    archive = networks.save(networks.Attention(), (torch.randn(2, 5, 8),), tmp_path / "model.pt2")
    layers = torch_layers(archive)
    document = of_torch(layers, exported_layers(archive))
    assert document["no_onnx_nodes"].startswith("torch.onnx.export failed: ")
    assert "step" not in document["no_onnx_nodes"]
    assert [each["module"] for each in document["layers"]] == ["qkv", None, None, "out", None]
    assert document["layers_without_node"] == [each.id for each in layers]


def test_a_worker_without_an_exporter_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch_to_onnx, "EXPORTER", "an_exporter_that_nobody_has")
    found = exported_layers(tmp_path / "unread.pt2")
    assert isinstance(found, NotExported)
    assert "an_exporter_that_nobody_has is not installed" in found.reason


def product(name: str) -> Layer:
    return layer(name, Operation.MATMUL)


def node(name: str, op: Operation = Operation.CONV, **fields: Any) -> Layer:
    return layer(name, op, **{"id": f"node_{name}", "weight": None, **fields})


@pytest.mark.parametrize(
    ("layers", "nodes", "found"),
    [
        ([layer("conv1")], [node("layer1.conv1")], {}),
        ([layer("conv1")], [node("conv1", Operation.LINEAR)], {}),
        ([layer("fc", weight_shape=(4, 8))], [node("fc", weight_shape=(8, 4))], {"fc": "node_fc"}),
        ([layer("fc", weight_shape=(4, 8))], [node("fc", weight_shape=(4, 4))], {}),
        (
            [layer("matmul", Operation.MATMUL), layer("matmul_1", Operation.MATMUL)],
            [node("matmul", Operation.MATMUL)],
            {},
        ),
        ([layer("a"), layer("b")], [node("b"), node("c")], {"b": "node_b"}),
    ],
    ids=["namesake elsewhere", "other operation", "transposed", "other sizes", "order alone", "some of them"],
)
def test_names_match_exactly_or_not_at_all(layers: Any, nodes: Any, found: dict[str, str]) -> None:
    assert matched(layers, nodes) == found


def test_what_has_no_counterpart_is_listed_on_both_sides() -> None:
    exported = Exported((node("b"), node("c")), {"torch": "2", "onnxscript": "0"})
    document = of_torch([layer("a"), layer("b")], exported)
    assert document["layers_without_node"] == ["a"]
    assert document["nodes_without_layer"] == ["node_c"]


def test_an_onnx_model_maps_its_nodes_to_modules_by_the_names_of_weights() -> None:
    path = DIGITS / "digits.onnx"
    document = of_onnx(onnx_layers(path), own_names(path))
    names = {node.name for node in onnx.load(path).graph.node}
    assert {each["onnx_node"] for each in document["layers"]} <= names
    assert {each["name"]: each["module"] for each in document["layers"]}["block3.depthwise"] == "block3.depthwise"
    assert document["layers_without_node"] == []


def test_a_node_without_a_name_of_its_own_has_none_in_the_map() -> None:
    document = of_onnx([layer("Conv_0"), layer("b")], {"b"})
    assert document["layers_without_node"] == ["Conv_0"]


def test_hostile_names_come_back_as_they_are() -> None:
    content = to_json(of_onnx([layer(name) for name in HOSTILE], set(HOSTILE)))
    assert [each["onnx_node"] for each in json.loads(content)["layers"]] == list(HOSTILE)
    assert content.isascii()
