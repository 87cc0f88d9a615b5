"""The list is given to quantize_static itself, and the graph that it writes is looked at."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader

from service.domain.layers import Operation
from tests.workers.exports.made import HOSTILE, layer, mixed, onnx_layers
from tests.workers.models.torch_networks import ConvNet
from workers.exports.mixed_precision import MixedPrecision
from workers.exports.onnx_nodes import own_names
from workers.exports.onnxruntime_list import document, to_json

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits.onnx"


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """Two batches of standard normal values."""

    def __init__(self, name: str, *shape: int) -> None:
        values = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
        self._batches: Iterator[dict[str, Any]] = iter([{name: each} for each in values])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def quantized(model: Path, decision: MixedPrecision, samples: Samples, folder: Path) -> onnx.ModelProto:
    """The model that the snippet in the file writes."""
    content = to_json(decision, own_names(model))
    (folder / "onnxruntime.json").write_bytes(content)
    scope: dict[str, Any] = {}
    exec(json.loads(content)["snippet"], scope)
    scope["quantize"](model, folder / "int8.onnx", samples, decision=folder / "onnxruntime.json")
    onnxruntime.InferenceSession(folder / "int8.onnx", providers=["CPUExecutionProvider"])
    return onnx.load(folder / "int8.onnx")


def dequantized_inputs(model: onnx.ModelProto) -> dict[str, set[str]]:
    """Node → the tensors that it reads through a DequantizeLinear, under the names they had before."""
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    through = {
        node.output[0]: sources.get(node.input[0], node.input[0])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    others = [node for node in model.graph.node if "quantizeLinear" not in node.op_type.replace("Q", "q")]
    return {node.name: {through[name] for name in node.input if name in through} for node in others}


def assert_placed(model: Path, decision: MixedPrecision, written: onnx.ModelProto) -> None:
    """Q/DQ at every layer in int8, none at others but where they read a tensor of one in int8; none on outputs."""
    inputs = {node.name: set(node.input) for node in onnx.load(model).graph.node}
    found = dequantized_inputs(written)
    int8 = {each.id for each in decision.int8}
    read_by_int8 = set().union(*(inputs[name] for name in int8))
    for each in decision.int8:
        assert len(found[each.id]) == (2 if each.weight or each.op.value == "Add" else 1), each.name
    for name, tensors in found.items():
        if name not in int8:
            assert tensors <= read_by_int8, name
    for each in decision.floating:
        weights = [name for name in found[each.id] if "weight" in name or name.endswith("_quantized")]
        assert not weights, each.name


@pytest.mark.parametrize(
    "floating",
    [("block3.depthwise", "block6.add", "classifier"), ("stem", "pool.averagepool"), ()],
    ids=["weighted, add and head", "stem and pool", "none"],
)
def test_the_digits_network_gets_q_dq_at_the_layers_in_int8_and_nowhere_else(
    floating: tuple[str, ...], tmp_path: Path
) -> None:
    decision = mixed(onnx_layers(DIGITS), *floating)
    written = quantized(DIGITS, decision, Samples("image", 8, 1, 16, 16), tmp_path)
    assert_placed(DIGITS, decision, written)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small residual network, as torch's exporter writes it."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    program = torch.onnx.export(ConvNet().eval(), (torch.randn(2, 3, 8, 8),), dynamo=True, verbose=False)
    assert program is not None
    program.save(str(path), external_data=False)
    return path


@pytest.mark.parametrize("floating", [("conv1", "avg_pool"), ("conv2", "add"), ("fc",)], ids=" ".join)
def test_an_exported_network_gets_q_dq_at_the_layers_in_int8_and_nowhere_else(
    exported: Path, floating: tuple[str, ...], tmp_path: Path
) -> None:
    decision = mixed(onnx_layers(exported), *floating)
    assert_placed(exported, decision, quantized(exported, decision, Samples("x", 2, 3, 8, 8), tmp_path))


def test_every_layer_is_listed_on_one_side(exported: Path) -> None:
    layers = onnx_layers(exported)
    arguments = document(mixed(layers, "conv1"), own_names(exported))["quantize_static"]
    (conv1,) = [each.id for each in layers if each.name == "conv1"]
    assert arguments["nodes_to_exclude"] == [conv1]
    assert arguments["nodes_to_quantize"] == [each.id for each in layers if each.id != conv1]


def test_hostile_names_come_back_as_they_are() -> None:
    decision = mixed([layer(name) for name in (*HOSTILE, "int8")], *HOSTILE)
    read = json.loads(to_json(decision, {*HOSTILE, "int8"}))["quantize_static"]
    assert read["nodes_to_exclude"] == list(HOSTILE)
    assert read["nodes_to_quantize"] == ["int8"]


def test_a_node_without_a_name_of_its_own_is_said_to_be_out_of_reach() -> None:
    found = document(mixed([layer("Conv_0"), layer("b")], "b"), {"b"})
    assert found["quantize_static"]["nodes_to_quantize"] == []
    assert [each["layer"] for each in found["not_addressable"]] == ["Conv_0"]


def test_nothing_in_int8_is_refused_rather_than_taken_for_everything(tmp_path: Path) -> None:
    (tmp_path / "decision.json").write_bytes(to_json(mixed([layer("a")], "a"), {"a"}))
    scope: dict[str, Any] = {}
    exec(document(mixed([layer("a")], "a"), {"a"})["snippet"], scope)
    with pytest.raises(ValueError, match="no layer is in int8"):
        scope["quantize"](DIGITS, tmp_path / "int8.onnx", None, decision=tmp_path / "decision.json")


def test_plugins_are_named_as_what_quantize_static_cannot_take() -> None:
    found = document(mixed([layer("a"), layer("plug", Operation.PLUGIN)], "a"), {"a", "plug"})
    assert found["quantize_static"]["nodes_to_quantize"] == []
    assert found["quantize_static"]["nodes_to_exclude"] == ["a"]
    assert [each["layer"] for each in found["not_addressable"]] == ["plug"]
    assert "takes no model with plugins" in found["differences"][-1]
