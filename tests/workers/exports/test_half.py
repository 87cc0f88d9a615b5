"""Fallback layers in float16: which casts there are, and what is left in float32."""

from pathlib import Path

import numpy as np
import onnx

from tests.workers.exports.graphs import opened, ops, ranges, readers, run, saved, written
from workers.exports.qdq_onnx import QdqSettings, export_qdq
from workers.models.onnx_graph import OnnxProgram
from workers.models.onnx_layers import LayerFinder

HALF = QdqSettings(half_fallback=True)
CHAIN = """g (float[n,2,4,4] x) => (float[n,2,4,4] y, float[n,2,4,4] side)
<float[2,2,1,1] w = {1,2,3,4}, float[2,2,1,1] v = {4,3,2,-9}, float[2] b = {1,2}, float[2,2,1,1] u = {1,0,0,1}>
{ [first] a = Conv(x, w, b) [act] r = Relu(a) [second] c = Conv(r, v) [third] y = Conv(c, u)
  [soft] side = Softmax(r) }"""


def test_layers_in_a_row_have_a_cast_at_each_border_only(tmp_path: Path) -> None:
    program, found = opened(saved(tmp_path, CHAIN))
    model = written(
        tmp_path, export_qdq(program, found, ranges(found, 60.0), fallback={"first", "second"}, settings=HALF)
    )
    read = readers(model)
    assert read["first"] == ["fp16/x", "*", "*"]
    assert read["act"] == ["fp16/a"]
    assert read["second"] == ["fp16/r", "*"]
    assert read["soft"] == ["r"]
    assert read["int8/c_QuantizeLinear"] == ["c", "*", "*"]
    # x in; r to the softmax; c to the int8 layer
    assert ops(model).count("Cast") == 3
    halves = {each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT16}
    assert halves == {"fp16/w", "fp16/b", "fp16/v"}
    assert {"w", "b", "v"}.isdisjoint(each.name for each in model.graph.initializer)


def test_the_outputs_keep_their_type_and_come_out_to_half_precision(tmp_path: Path) -> None:
    program, found = opened(saved(tmp_path, CHAIN))
    everything = {each.layer.id for each in found}
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
    plain = run(written(tmp_path, export_qdq(program, found, {}, fallback=everything)), x=x)
    half = run(written(tmp_path, export_qdq(program, found, {}, fallback=everything, settings=HALF)), x=x)
    for name, value in plain.items():
        assert half[name].dtype == np.float32
        # 11 bits, three layers deep
        np.testing.assert_allclose(half[name], value, rtol=0, atol=4 * 2.0**-11 * np.abs(value).max())
        assert np.any(half[name] != value)


def test_a_weight_beyond_float16_keeps_its_layer_in_float32(tmp_path: Path) -> None:
    program, found = opened(saved(tmp_path, CHAIN.replace("{4,3,2,-9}", "{4,3,2,-70000}")))
    export = export_qdq(program, found, ranges(found), fallback={"second"}, settings=HALF)
    (kept,) = export.kept_float32
    assert kept.layer == "second"
    assert "65504" in kept.reason
    assert "Cast" not in ops(export.model)


def test_integer_inputs_and_shared_constants_stay_what_they_are(tmp_path: Path) -> None:
    body = """g (float[n,2] x) => (float[n,1,2] y, float[n,2] z, float[n,4] o, float[n,2] m)
    <float[2,2] w = {1,2,3,4}, float[2] k = {1,2}, int64[1] at = {1}, int64[4] pads = {0,1,0,1}, float five = {5}>
    { [mm] a = MatMul(x, w) [more] b = Add(a, k) [mixed] m = Mul(a, x) [pad] o = Pad(b, pads, five)
      [wide] y = Unsqueeze(b, at) [other] z = Mul(x, k) }"""
    program, found = opened(saved(tmp_path, body))
    model = written(tmp_path, export_qdq(program, found, {}, fallback={"mm"}, settings=HALF))
    assert readers(model)["more"] == ["fp16/a", "*"]
    assert readers(model)["mixed"] == ["a", "x"]  # one operand is float32, and so is the product
    assert readers(model)["pad"] == ["fp16/b", "*", "*"]
    kinds = {each.name: each.data_type for each in model.graph.initializer}
    assert kinds["k"] == onnx.TensorProto.FLOAT
    assert kinds["fp16/k"] == onnx.TensorProto.FLOAT16
    assert kinds["at"] == onnx.TensorProto.INT64
    assert run(model, x=np.ones((1, 2), dtype=np.float32))["y"].tolist() == [[[5.0, 8.0]]]


def test_a_plugin_stays_float32() -> None:
    """Its library alone knows which types it takes."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 18, "maker.example" : 1]>
    g (float[1,2] x) => (float[1,2] y) <float[1,2] a> { [act] a = Relu(x) [plug] y = maker.example.Swirl(a) }""")
    program = OnnxProgram(model, {}, (), (), 1, 0)
    found = LayerFinder(program).find()
    export = export_qdq(program, found, {}, fallback={"plug"}, settings=HALF)
    assert [(each.layer, each.reason) for each in export.kept_float32] == [
        ("plug", "it is a plugin, which may take float32 alone")
    ]
