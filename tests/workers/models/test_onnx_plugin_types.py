"""What is found out of plugins by ONNX Runtime, and which layers come of it."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from service.domain.errors import RejectedFile
from service.domain.layers import Operation
from tests.workers.plugins import LAYERS, NETWORK, PLUGIN_EDGES, broken_library, library, model_bytes, saved
from workers.models.onnx_graph import OnnxProgram, read_onnx
from workers.models.onnx_layers import Found, LayerFinder


def opened(folder: Path, body: str = NETWORK) -> OnnxProgram:
    return read_onnx(saved(folder, body), fuse_bn=True, libraries=[library()])


def shapes(program: OnnxProgram) -> dict[str, list[object] | None]:
    found: dict[str, list[object] | None] = {}
    for each in program.skeleton.graph.value_info:
        kind = each.type.tensor_type
        sizes = [size.dim_value if size.HasField("dim_value") else size.dim_param for size in kind.shape.dim]
        found[each.name] = sizes if kind.HasField("shape") else None
    return found


def by_id(program: OnnxProgram) -> dict[str, Found]:
    return {each.layer.id: each for each in LayerFinder(program).find()}


def test_sizes_that_follow_the_batch_are_the_batchs_and_what_lies_behind_is_known_too(tmp_path: Path) -> None:
    found = shapes(opened(tmp_path))
    assert found["negative"] == found["positive"] == ["N", 5]
    assert found["l"] == found["r"] == ["N", 5]


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    found = shapes(opened(tmp_path, NETWORK.replace("[N,", "[2,")))
    assert found["negative"] == [2, 5]


def test_a_size_that_hangs_on_values_is_not_taken_for_a_fixed_one(tmp_path: Path) -> None:
    body = """g (float[n,4] x, int64[n] segment) => (float[k,3] y) <float[4,3] w = {1,2,3,4,5,6,7,8,9,1,2,3}>
    { [sums] s = ai.onnx.contrib.SegmentSum(x, segment) [fc] y = MatMul(s, w) }"""
    assert shapes(opened(tmp_path, body))["s"] == ["", 4]


def test_where_other_sizes_are_free_the_type_is_known_and_no_shape(tmp_path: Path) -> None:
    body = """g (float[n,m] x) => (float[n,m] y)
    { [plug] p, q = ai.onnx.contrib.NegPos(x) [gone] y = Add(p, q) }"""
    program = opened(tmp_path, body)
    assert shapes(program)["p"] is None
    finder = LayerFinder(program)
    (plug,) = finder.find()
    assert plug.layer.output_shape is None
    assert [each.reason for each in finder.skipped] == ["the shapes of its operands are not known from the file"]


def test_a_plugin_is_a_layer_whose_float_activations_are_edges_on_both_sides(tmp_path: Path) -> None:
    found = by_id(opened(tmp_path))
    assert tuple(found) == LAYERS
    plugin = found["split"]
    assert plugin.layer.op is Operation.PLUGIN
    assert plugin.layer.activations == PLUGIN_EDGES
    assert (plugin.operands, plugin.outputs, plugin.quantized_outputs) == ((0,), (0, 1), (0, 1))
    assert (plugin.layer.macs, plugin.layer.weight, plugin.layer.weight_bytes) == (None, None, 0)
    assert plugin.layer.output_shape == (5,)


def test_integers_and_constants_at_a_plugin_are_no_edges(tmp_path: Path) -> None:
    body = """g (float[n,4] x, int64[n] segment) => (float[k,4] y)
    <float[2,4] w = {1,2,3,4,5,6,7,8}, int64[2] i = {0,1}>
    { [sums] y = ai.onnx.contrib.SegmentSum(x, segment) [fixed] z = ai.onnx.contrib.SegmentSum(w, i) }"""
    finder = LayerFinder(opened(tmp_path, body))
    (sums,) = finder.find()
    assert sums.layer.activations == ("sums:0", "sums=>0")
    assert sums.quantized_outputs == (), "no pair stands at an output of the graph"
    assert [(each.id, each.reason) for each in finder.skipped] == [
        ("fixed", "the plugin ai.onnx.contrib::SegmentSum reads no float32 activation")
    ]


def test_an_operator_of_another_domain_is_no_standard_one_of_its_name(tmp_path: Path) -> None:
    """ai.onnx.contrib has no Identity: that only the runtime finds out."""
    body = "g (float[n,4] x) => (float[n,4] y) { [odd] y = ai.onnx.contrib.Identity(x) }"
    with pytest.raises(RejectedFile, match=r"ai\.onnx\.contrib::Identity \(node 'odd'\)"):
        opened(tmp_path, body)


def test_a_plugin_inside_control_flow_is_named_and_no_layer(tmp_path: Path) -> None:
    body = """g (bool c, float[2,4] x) => (float[2,3] y) <float[4,3] w = {1,2,3,4,5,6,7,8,9,1,2,3}>
    { [either] h = If (c) <
        then_branch = one () => (float[2,4] u) { [inside] u, v = ai.onnx.contrib.NegPos(x) },
        else_branch = two () => (float[2,4] w2) { w2 = Identity(x) }>
      [fc] y = MatMul(h, w) }"""
    finder = LayerFinder(opened(tmp_path, body))
    assert [each.layer.id for each in finder.find()] == ["fc"]
    assert [each.name for each in finder.skipped] == ["either/inside"]


def test_large_weights_before_a_plugin_are_given_to_the_session(tmp_path: Path) -> None:
    weight = np.ones((4, 256), np.float32)
    model = onnx.load_from_string(
        model_bytes("g (float[n,4] x) => (float[n,256] y) { h = MatMul(x, w) [plug] y, z = ai.onnx.contrib.NegPos(h) }")
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    program = read_onnx(tmp_path / "m.onnx", fuse_bn=True, libraries=[library()])
    assert set(program.weights) == {"w"}
    assert shapes(program)["z"] == ["n", 256]


def test_without_a_library_the_operator_and_the_setting_are_named(tmp_path: Path) -> None:
    wanted = r"ai\.onnx\.contrib::NegPos \(node 'split'\).*QUANTSIEVE_CUSTOM_OP_LIBRARIES"
    with pytest.raises(RejectedFile, match=wanted):
        read_onnx(saved(tmp_path), fuse_bn=True)


def test_a_library_without_the_operator_and_one_that_does_not_load_are_named(tmp_path: Path) -> None:
    body = NETWORK.replace("NegPos", "Nobody")
    wanted = r"ai\.onnx\.contrib::Nobody \(node 'split'\).*QUANTSIEVE_CUSTOM_OP_LIBRARIES names "
    with pytest.raises(RejectedFile, match=wanted + r"broken\.so \(not loaded: .*\), _extensions") as raised:
        read_onnx(saved(tmp_path, body), fuse_bn=True, libraries=[broken_library(tmp_path), library()])
    assert str(tmp_path) not in raised.value.message, "an uploader is shown no path of the worker's"


def test_a_library_that_does_not_load_is_left_out_where_another_has_the_operator(tmp_path: Path) -> None:
    libraries = [tmp_path / "nowhere.so", broken_library(tmp_path), library()]
    assert shapes(read_onnx(saved(tmp_path), fuse_bn=True, libraries=libraries))["positive"] == ["N", 5]
