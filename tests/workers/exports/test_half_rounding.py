"""Float16 that a CPU without float16 kernels can be held to."""

from pathlib import Path

import numpy as np
import onnx

from tests.workers.exports.graphs import opened, run, saved, written
from workers.exports.half_rounding import round_halves
from workers.exports.qdq_onnx import QdqSettings, export_qdq

CHAIN = """g (float[n,2] x) => (float[n,2] y)
<float[2,2] w = {1,0.5,-0.25,2}, float[2,2] v = {3,-1,0.5,1}, float[2] b = {0.5,0.125}>
{ [first] a = MatMul(x, w) [biased] c = Add(a, b) [act] r = Relu(c) [second] y = MatMul(r, v) }"""
W, V, B = np.array([[1, 0.5], [-0.25, 2]]), np.array([[3, -1], [0.5, 1]]), np.array([0.5, 0.125])


def half(array: np.ndarray) -> np.ndarray:
    """Rounded to float16, in float32."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32).astype(np.float16).astype(np.float32)


def exported(tmp_path: Path) -> onnx.ModelProto:
    program, found = opened(saved(tmp_path, CHAIN))
    everything = {each.layer.id for each in found}
    return written(
        tmp_path, export_qdq(program, found, {}, fallback=everything, settings=QdqSettings(half_fallback=True))
    )


def test_every_result_is_rounded_as_it_is_stored(tmp_path: Path) -> None:
    model = exported(tmp_path)
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    a = half(half(x) @ W)
    expected = half(np.maximum(half(a + B), 0) @ V)
    # the runtime by itself rounds nothing: all constants are float16 numbers, and it computes in float32
    assert np.any(run(model, x=x)["y"] != expected)
    round_halves(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(model, x=x)["y"], expected)


def test_what_float16_cannot_hold_is_infinite(tmp_path: Path) -> None:
    model = exported(tmp_path)
    round_halves(model)
    found = run(model, x=np.array([[60000, 30000], [1, 1]], np.float32))["y"]
    assert np.isinf(found[0]).any()
    assert np.isfinite(found[1]).all()


def test_a_graph_without_float16_is_left_as_it_is(tmp_path: Path) -> None:
    program, found = opened(saved(tmp_path, CHAIN))
    model = written(tmp_path, export_qdq(program, found, {}, fallback={each.layer.id for each in found}))
    before = list(model.graph.node)
    round_halves(model)
    assert list(model.graph.node) == before
