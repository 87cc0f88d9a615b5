"""The exported graph: where pairs stand, and that it computes what the sweep measured."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from service.domain.errors import InvalidInput
from tests.real_data import MODELS, RealModel, needs_data
from tests.workers.exports.graphs import HEAD, opened, ops, ranges, readers, run, saved, written
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_lint import lint_qdq
from workers.exports.qdq_onnx import QdqExport, QdqSettings, export_qdq
from workers.models.onnx_graph import OnnxProgram
from workers.models.onnx_layers import Found, LayerFinder
from workers.models.onnx_qdq import insert_qdq, quantized_weight

RESIDUAL = """g (float[n,2,4,4] x) => (float[n,2,4,4] y, float[n,2,4,4] z)
<float[2,2,1,1] w = {1,2,3,4}, float[2,2,1,1] v = {4,3,2,-9}, float[2] b = {1,2}, float[2] s = {1,2},
 float[2] m = {0,1}, float[2] t = {1,4}>
{ [first] a = Conv(x, w, b) [bn] n1 = BatchNormalization(a, s, b, m, t) [act] r = Relu(n1)
  [second] c = Conv(r, v) [sum] d = Add(c, r) [end] y = Relu(d) [side] z = Sigmoid(r) }"""
JOINED = """g (float[n,2,4,4] x) => (float[n,3,4,4] y, float[n,1,4,4] z)
<float[1,2,1,1] w = {1,2}, float[1,2,1,1] v = {3,-1}, float[3,2,1,1] u = {1,2,3,4,5,6}, float[1,1,1,1] k = {2}>
{ [first] a = Conv(x, w) [second] b = Conv(x, v) [join] c = Concat<axis=1>(a, b) [last] y = Conv(c, u)
  [alone] z = Conv(a, k) }"""


def feed(seed: int = 0, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape or (3, 2, 4, 4)).astype(np.float32)


def sweep_variant(
    folder: Path, program: OnnxProgram, found: list[Found], amax: dict[str, float], fallback: set[str]
) -> Path:
    """The graph that a sweep measures, its weights inside."""
    layers = {each.layer.id: each for each in found if each.layer.id not in fallback}
    made = insert_qdq(program.skeleton, layers.values(), amax)
    added = {name: quantized_weight(layers[layer], per_channel=True) for name, layer in made.weights.items()}
    path = folder / "variant.onnx"
    write_onnx(path, made.model, {**program.weights, **added})
    return path


def test_pairs_stand_on_inputs_and_on_the_skip_branch_only(tmp_path: Path) -> None:
    program, found = opened(saved(tmp_path, RESIDUAL))
    model = written(tmp_path, export_qdq(program, found, ranges(found)))
    read = readers(model)
    assert read["first"] == ["int8/x_dq", "int8_weight/w_axis0_dq", "*"]
    assert read["act"] == ["n1"]
    assert read["second"] == ["int8/r_dq", "int8_weight/v_axis0_dq"]
    assert read["sum"] == ["c", "int8/r_dq"]
    assert (read["end"], read["side"]) == (["d"], ["r"])
    assert ops(model).count("QuantizeLinear") == 2
    assert {each.name for each in model.graph.output} == {"y", "z"}


def test_weights_are_int8_initializers_with_a_scale_for_each_output_channel(tmp_path: Path) -> None:
    program, found = opened(saved(tmp_path, RESIDUAL))
    model = written(tmp_path, export_qdq(program, found, ranges(found)))
    held = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    np.testing.assert_array_equal(held["int8_weight/v_axis0_int8"].reshape(2, 2), [[127, 95], [28, -127]])
    np.testing.assert_allclose(held["int8_weight/v_axis0_scale"], [4 / 127, 9 / 127], rtol=1e-7)
    assert "v" not in held
    assert held["b"].dtype == np.float32


@pytest.mark.parametrize("fallback", [set(), {"second"}, {"first", "sum"}], ids=["none", "one", "two"])
@pytest.mark.parametrize("body", [RESIDUAL, JOINED], ids=["residual", "joined"])
def test_the_outputs_are_those_of_the_variant_that_was_measured(tmp_path: Path, body: str, fallback: set[str]) -> None:
    program, found = opened(saved(tmp_path, body))
    fallback &= {each.layer.id for each in found}
    amax = ranges(found, 2.5)
    made = run(written(tmp_path, export_qdq(program, found, amax, fallback=fallback)), x=feed())
    measured = run(sweep_variant(tmp_path, program, found, amax, fallback), x=feed())
    for name, value in measured.items():
        # the same arithmetic on the same levels; a kernel may only choose another order of sums
        np.testing.assert_allclose(made[name], value, rtol=1e-6, atol=1e-6)


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("real", MODELS, ids=lambda each: each.folder)
def test_real_models_compute_what_was_measured_and_lint_clean(tmp_path: Path, real: RealModel) -> None:
    program, found = opened(real.file("onnx"))
    samples = np.load(real.evaluation)["inputs"][: program.batch_size or 4]
    (given,) = program.inputs
    feeds = {given.name: samples.astype(given.dtype)}
    amax = ranges(found, 3.0)
    fallback = {each.layer.id for each in found[::3]}
    export = export_qdq(program, found, amax, fallback=fallback)
    assert (export.rescaled, lint_qdq(export.model, export.weights)) == ((), ())
    made = run(written(tmp_path, export), **feeds)
    measured = run(sweep_variant(tmp_path, program, found, amax, fallback), **feeds)
    for name, value in measured.items():
        np.testing.assert_allclose(made[name], value, rtol=0, atol=1e-5 * np.abs(value).max())


def test_branches_of_a_join_get_one_scale_and_the_result_says_so(tmp_path: Path) -> None:
    program, found = opened(saved(tmp_path, JOINED))
    amax = ranges(found, 1.0) | {"alone:0": 4.0, "last:0": 2.0}
    export = export_qdq(program, found, amax)
    (changed,) = export.rescaled
    assert (changed.edge, changed.before, changed.amax, changed.shared_with) == ("last:0", 2.0, 4.0, ("a",))
    unified = run(written(tmp_path, export), x=feed())
    expected = run(sweep_variant(tmp_path, program, found, amax | {"last:0": 4.0}, set()), x=feed())
    np.testing.assert_allclose(unified["y"], expected["y"], rtol=1e-6, atol=1e-6)
    apart = export_qdq(program, found, amax, settings=QdqSettings(unify=False))
    assert apart.rescaled == ()
    assert lint_qdq(export.model, export.weights) == ()
    assert [each.rule.value for each in lint_qdq(apart.model, apart.weights)] == ["requantize"]


def test_layers_that_share_a_weight_share_its_int8_form(tmp_path: Path) -> None:
    body = """g (float[n,2,4,4] x) => (float[n,2,4,4] y, float[n,2,4,4] z) <float[2,2,1,1] w = {1,2,3,4}>
    { [first] y = Conv(x, w) [second] z = Conv(x, w) }"""
    program, found = opened(saved(tmp_path, body))
    both = written(tmp_path, export_qdq(program, found, ranges(found)))
    assert ops(both) == ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv", "Conv"]
    one = written(tmp_path, export_qdq(program, found, ranges(found), fallback={"first"}))
    assert readers(one)["first"] == ["x", "*"]


@pytest.mark.parametrize(("axis", "count"), [(1, 3), (0, 2)])
def test_the_axis_of_a_transposed_convolution_is_a_setting(tmp_path: Path, axis: int, count: int) -> None:
    body = """g (float[n,2,4,4] x) => (float[n,3,4,4] y) <float[2,3,1,1] w = {1,2,3,4,5,6}>
    { [up] y = ConvTranspose(x, w) }"""
    program, found = opened(saved(tmp_path, body))
    settings = QdqSettings(transposed_axis=axis)  # type: ignore[arg-type]
    model = written(tmp_path, export_qdq(program, found, ranges(found), settings=settings))
    (weight,) = [each for each in model.graph.node if each.output[0].startswith("int8_weight/")]
    assert [each.i for each in weight.attribute if each.name == "axis"] == [axis]
    scale = next(each for each in model.graph.initializer if each.name == weight.input[1])
    assert list(scale.dims) == [count]


def test_a_matrix_behind_a_view_is_stored_as_it_is_read(tmp_path: Path) -> None:
    body = """g (float[n,2] x) => (float[n,3] y) <float[3,2] w = {1,2,3,4,5,60}>
    { [turn] v = Transpose<perm=[1,0]>(w) [mm] y = MatMul(x, v) }"""
    program, found = opened(saved(tmp_path, body))
    model = written(tmp_path, export_qdq(program, found, ranges(found)))
    assert "Transpose" not in ops(model)
    x = np.float32([[1, 2]])
    np.testing.assert_allclose(run(model, x=x)["y"], [[5, 11, 125]], rtol=0.02)


def plugin() -> tuple[OnnxProgram, list[Found]]:
    text = """<ir_version: 8, opset_import: ["" : 18, "maker.example" : 1]>
    g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z) <float[2,2,1,1] w = {1,2,3,4}, float[1,2,4,4] a>
    { [plug] a = maker.example.Swirl(x) [conv] y = Conv(a, w) [soft] z = Relu(a) }"""
    model = onnx.parser.parse_model(text)
    program = OnnxProgram(model, {}, (), (), 1, 0)
    return program, LayerFinder(program).find()


def test_a_plugin_in_int8_has_pairs_before_and_behind_it(tmp_path: Path) -> None:
    program, found = plugin()
    export = export_qdq(program, found, ranges(found))
    model = written(tmp_path, export)
    read = readers(model)
    assert read["plug"] == ["int8/x_dq"]
    assert read["int8/a_QuantizeLinear"] == ["a", "*", "*"]
    assert read["conv"][0] == read["soft"][0] == "int8/a_dq"
    assert ops(model).count("QuantizeLinear") == 2
    assert lint_qdq(export.model, export.weights) == ()
    with pytest.raises(InvalidInput, match="plug=>0"):
        export_qdq(program, found, {"plug:0": 2.0, "conv:0": 2.0})


@pytest.mark.parametrize(
    ("amax", "fallback", "message"),
    [
        ({}, {"nobody"}, "no layer 'nobody'"),
        ({"second:0": 1.0}, {"sum"}, "'first:0' .*no range"),
        ({"first:0": float("nan"), "second:0": 1.0}, {"sum"}, "'first:0' is nan"),
        ({"first:0": -1.0, "second:0": 1.0}, {"sum"}, "'first:0' is -1.0"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, amax: dict[str, float], fallback: set[str], message: str
) -> None:
    program, found = opened(saved(tmp_path, RESIDUAL))
    with pytest.raises(InvalidInput, match=message):
        export_qdq(program, found, amax, fallback=fallback)


def test_a_weight_that_is_not_finite_is_refused_in_int8_only(tmp_path: Path) -> None:
    body = "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> { [mm] y = MatMul(x, w) }"
    path = tmp_path / "m.onnx"
    model = onnx.parser.parse_model(HEAD + body)
    bad = np.float32([[1, np.nan], [1, 2]])
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(bad, "w"))
    onnx.save(model, path)
    program, found = opened(path)
    with pytest.raises(InvalidInput, match="'mm' holds NaN"):
        export_qdq(program, found, ranges(found))
    kept = export_qdq(program, found, ranges(found), fallback={"mm"})
    assert ops(kept.model) == ["MatMul"]


def test_the_program_comes_back_untouched(tmp_path: Path) -> None:
    program, found = opened(saved(tmp_path, RESIDUAL))
    before, weights = program.skeleton.SerializeToString(), dict(program.weights)
    for half in (False, True):
        export: QdqExport = export_qdq(
            program, found, ranges(found), fallback={"first"}, settings=QdqSettings(half_fallback=half)
        )
        assert export.int8 == ("second", "sum")
    assert program.skeleton.SerializeToString() == before
    assert program.weights == weights


def test_the_bodies_of_control_flow_read_a_plugins_output_quantized_too(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "maker.example" : 1]>
    g (bool c, float[1,2] x) => (float[1,2] y) <float[1,2] a>
    { [plug] a = maker.example.Swirl(x)
      [either] y = If (c) < then_branch = one () => (float[1,2] u) { u = Relu(a) },
                            else_branch = two () => (float[1,2] v) { v = Add(a, a) }> }"""
    program = OnnxProgram(onnx.parser.parse_model(text), {}, (), (), 1, 0)
    found = LayerFinder(program).find()
    model = written(tmp_path, export_qdq(program, found, ranges(found)))
    (either,) = [node for node in model.graph.node if node.op_type == "If"]
    inside = {name for branch in either.attribute for node in branch.g.node for name in node.input}
    assert inside == {"int8/a_dq"}
