"""Q/DQ apart: the float32 graph and the scales, and back to the same Q/DQ."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from service.domain.caches import CacheAlgorithm
from service.domain.errors import InvalidInput
from tests.workers.exports.graphs import HEAD, opened, ops, run, saved, written
from workers.exports.from_cache import from_cache
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_onnx import export_qdq
from workers.exports.to_cache import SeveralScales, ToCache, to_cache

CONSTANTS = "float s = {0.5}, float s2 = {0.25}, int8 z = {0}, float[2] ws = {0.5, 0.25}, int8[2] wz = {0, 0}"


def apart(model: onnx.ModelProto) -> ToCache:
    return to_cache(model, {}, version="100300", algorithm=CacheAlgorithm.ENTROPY_2)


def parsed(body: str, more: str = "") -> onnx.ModelProto:
    text = f"{HEAD}g (float[n,2] x) => (float[n,2] y) <{CONSTANTS}{', ' if more else ''}{more}> {{ {body} }}"
    return onnx.parser.parse_model(text)


def scales(made: ToCache) -> dict[str, float]:
    return {each.tensor: each.scale for each in made.cache.entries}


def test_there_and_back_gives_the_same_scales_and_outputs(tmp_path: Path) -> None:
    body = """g (float[n,2,4,4] x) => (float[n,2,4,4] y)
    <float[2,2,1,1] w = {1,2,3,4}, float[2,2,1,1] v = {4,3,2,-9}>
    { [first] a = Conv(x, w) [act] r = Relu(a) [second] c = Conv(r, v) [sum] y = Add(c, r) }"""
    program, found = opened(saved(tmp_path, body))
    export = export_qdq(program, found, {"first:0": 3.0, "second:0": 5.0, "sum:1": 5.0})
    quantized = written(tmp_path, export)
    made = apart(quantized)
    assert scales(made) == {"x": np.float32(3 / 127), "r": np.float32(5 / 127)}
    write_onnx(tmp_path / "plain.onnx", made.model, made.weights)
    assert ops(onnx.load(tmp_path / "plain.onnx")) == ["Conv", "Relu", "Conv", "Add"]
    again_program, again_found = opened(tmp_path / "plain.onnx")
    again = written(tmp_path, from_cache(again_program, again_found, made.cache, aliases={}).export)
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)
    # the weights are on their levels already, so that quantizing them again changes the last bit at most
    np.testing.assert_allclose(run(again, x=x)["y"], run(quantized, x=x)["y"], rtol=1e-5, atol=1e-5)


def test_weights_become_what_their_levels_stand_for(tmp_path: Path) -> None:
    body = """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) f = DequantizeLinear<axis=1>(w, ws, wz)
    y = MatMul(d, f)"""
    made = apart(parsed(body, "int8[2,2] w = {2, 4, -6, 127}"))
    np.testing.assert_array_equal(made.weights["f"], [[1, 1], [-3, 31.75]])
    (file,) = write_onnx(tmp_path / "plain.onnx", made.model, made.weights)
    np.testing.assert_array_equal(run(file, x=np.float32([[0.1, 1]]))["y"], np.float32([[-2.9, 31.85]]))


def test_a_weight_that_was_float_comes_back_as_it_was() -> None:
    body = """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wq = QuantizeLinear(w, s, z)
    f = DequantizeLinear(wq, s, z) y = MatMul(d, f)"""
    made = apart(parsed(body, "float[2,2] w = {2.1, 4.2, -6.3, 0.1}"))
    np.testing.assert_array_equal(made.weights["f"], np.float32([[2.1, 4.2], [-6.3, 0.1]]))


def test_the_name_of_an_output_stays(tmp_path: Path) -> None:
    made = apart(parsed("a = Relu(x) q = QuantizeLinear(a, s, z) y = DequantizeLinear(q, s, z)"))
    (file,) = write_onnx(tmp_path / "plain.onnx", made.model, made.weights)
    assert scales(made) == {"a": 0.5}
    np.testing.assert_array_equal(run(file, x=np.float32([[0.3, -1]]))["y"], np.float32([[0.3, 0]]))


def test_the_largest_of_several_scales_is_kept_and_the_others_named() -> None:
    body = """q = QuantizeLinear(x, s2, z) d = DequantizeLinear(q, s2, z) p = QuantizeLinear(x, s, z)
    e = DequantizeLinear(p, s, z) y = Add(d, e)"""
    made = apart(parsed(body))
    assert scales(made) == {"x": 0.5}
    assert made.several_scales == (SeveralScales("x", 0.5, (0.25,)),)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = Relu(x)", "no Q/DQ pair on an activation"),
        ("q = QuantizeLinear(x, s, u) y = DequantizeLinear(q, s, u)", "zero point 0"),
        ("q = QuantizeLinear<axis=1>(x, ws, wz) y = DequantizeLinear<axis=1>(q, ws, wz)", "2 scales for an activation"),
        ("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s2, z)", "different scales"),
        ("a = Cast<to=3>(x) y = DequantizeLinear(a, s, z)", "no QuantizeLinear made"),
        ("t = ReduceMax<keepdims=0>(x) q = QuantizeLinear(x, t, z) y = DequantizeLinear(q, t, z)", "not constant"),
        ("q = QuantizeLinear(x, s, k) y = DequantizeLinear(q, s, k)", "not symmetric int8"),
    ],
)
def test_what_a_cache_cannot_say_is_refused(body: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        apart(parsed(body, "int8 u = {3}, uint8 k = {0}"))
