"""What the engine's inspector says, in TensorRT's documented JSON, and what is concluded from it."""

import json

import pytest

from workers.backends.tensorrt.inspector import read_layers, why_not_realised
from workers.backends.tensorrt.names import onnx_nodes

FP32 = "Row major linear FP32"
INT8 = "Thirty-two wide channel vectorized row major Int8 format"


def layer(name: str, inputs: list[str], *, kind: str = "CaskConvolution", metadata: str = "", **more: object) -> dict:
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [
            {"Name": f"in{index}", "Location": "Device", "Dimensions": [8, 16, 32, 32], "Format/Datatype": each}
            for index, each in enumerate(inputs)
        ],
        "Outputs": [
            {"Name": "out", "Location": "Device", "Dimensions": [8, 16, 32, 32], "Format/Datatype": FP32},
        ],
        "ParameterType": "Convolution",
        "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
        "StreamId": 0,
        "Metadata": metadata,
        **more,
    }


def weights(kind: str) -> dict[str, object]:
    return {"Weights": {"Type": kind, "Count": 2304}, "Bias": {"Type": "Float", "Count": 16}}


def reason(layers: list[dict], wanted: dict[str, int], unwanted: tuple[str, ...] = ()) -> str | None:
    return why_not_realised(read_layers(json.dumps({"Layers": layers, "Bindings": ["x", "y"]})), wanted, unwanted)


@pytest.mark.parametrize(
    ("name", "metadata", "nodes"),
    [
        ("a", "[ONNX Layer: /blk/Conv]", {"/blk/Conv"}),
        ("a + b", "[ONNX Layer: /blk/Conv]\x1f[ONNX Layer: /blk/Relu]", {"/blk/Conv", "/blk/Relu"}),
        ("a", "[ONNX Layer: /blk/Conv]\x1e[ONNX Layer: /blk/Relu]\x1f", {"/blk/Conv", "/blk/Relu"}),
        ("a", "[ONNX Layer: odd [0] + name]", {"odd [0] + name"}),
        ("/blk/Conv + /blk/Relu", "", {"/blk/Conv", "/blk/Relu"}),
        ("", "", set()),
    ],
    ids=["one", "fused", "both separators", "brackets in a name", "no metadata", "nothing"],
)
def test_an_engine_layer_names_its_onnx_nodes(name, metadata, nodes) -> None:
    assert onnx_nodes(name, metadata) == nodes


def test_a_layer_with_int8_inputs_is_realised() -> None:
    layers = [
        layer("Reformatting CopyNode for Input Tensor 0 to conv1", [FP32], kind="Reformat"),
        layer("conv1 + relu1", [INT8], metadata="[ONNX Layer: conv1]\x1f[ONNX Layer: relu1]", **weights("Int8")),
        layer("conv2", [FP32], metadata="[ONNX Layer: conv2]", **weights("Float")),
    ]
    assert reason(layers, {"conv1": 1}, ("conv2",)) is None


def test_a_layer_that_stayed_in_floating_point_is_not_and_the_engine_layer_is_named() -> None:
    said = reason([layer("conv1 + relu1", [FP32], metadata="[ONNX Layer: conv1]", **weights("Float"))], {"conv1": 1})
    assert said == "'conv1' runs in floating point, in the engine's layer 'conv1 + relu1' (CaskConvolution)"


def test_int8_weights_alone_do_not_make_a_layer_int8() -> None:
    said = reason([layer("conv1", [FP32], **weights("Int8"))], {"conv1": 1})
    assert said is not None
    assert "floating point" in said


def test_a_conversion_that_reads_int8_does_not_count() -> None:
    layers = [layer("conv1", [INT8], kind="Reformat"), layer("conv1", [FP32])]
    assert "floating point" in (reason(layers, {"conv1": 1}) or "")


def test_every_quantized_operand_must_be_int8() -> None:
    one = [layer("matmul", [INT8, FP32], kind="CaskGemmMatrixMultiply")]
    both = [layer("matmul", [INT8, INT8], kind="CaskGemmMatrixMultiply")]
    assert "floating point" in (reason(one, {"matmul": 2}) or "")
    assert reason(both, {"matmul": 2}) is None


def test_another_layer_in_int8_spoils_the_variant_unless_it_is_fused_with_the_target() -> None:
    fused = layer("conv1 + add", [INT8, FP32], metadata="[ONNX Layer: conv1]\x1f[ONNX Layer: add]")
    assert reason([fused], {"conv1": 1}, ("add", "conv2")) is None
    said = reason([fused, layer("conv2", [INT8])], {"conv1": 1}, ("add", "conv2"))
    assert said == "'conv2' runs in int8 too, in the engine's layer 'conv2'"
    assert "'conv2' runs in int8" in (reason([layer("conv2", [INT8])], {}, ("conv2",)) or "")


def test_a_node_that_the_engine_does_not_list_is_not_realised() -> None:
    said = reason([layer("conv10", [INT8])], {"conv1": 1})
    assert said == "the engine lists no layer that holds 'conv1'"


@pytest.mark.parametrize("key", ["Format/Datatype", "Datatype", "Format"])
def test_the_data_type_is_read_wherever_a_version_writes_it(key) -> None:
    found = layer("conv1", [])
    found["Inputs"] = [{"Name": "x", key: "Int8"}]
    assert reason([found], {"conv1": 1}) is None


@pytest.mark.parametrize("text", ['{"Layers": ["conv1", "conv2"]}', "{}", "no JSON", "[]"])
def test_without_details_nothing_is_concluded(text) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own error is one too
        read_layers(text)
