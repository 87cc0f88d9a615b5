"""A calibration cache becomes Q/DQ: the same outputs as its scales put in directly, and what stays float is named."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.domain.caches import CacheAlgorithm
from service.domain.errors import InvalidInput
from service.inspection.calibration_cache import CacheEntry, CalibrationCache
from tests.workers.exports.graphs import HEAD, opened, readers, run, saved, written
from workers.exports.from_cache import FromCache, LeftFloat, Renamed, folded_names, from_cache

BODY = """g (float[n,2,4,4] x) => (float[n,2,4,4] y)
<float[2,2,1,1] w = {1,2,3,4}, float[2,2,1,1] v = {4,3,2,-9}, float[2,2,1,1] u = {1,2,1,2}, float[2] g = {1,2},
 float[2] m = {0,1}, float[2] t = {1,4}>
{ [first] conv_out = Conv(x, w) [bn] bn_out = BatchNormalization(conv_out, g, g, m, t) [second] c = Conv(bn_out, v)
  [sum] d = Add(c, bn_out) [act] r = Relu(d) [third] y = Conv(r, u) }"""
SCALES = {"x": 0.03, "bn_out": 0.05, "r": 0.11, "y": 0.4}


def cache(scales: Mapping[str, float]) -> CalibrationCache:
    entries = tuple(CacheEntry.of(tensor, scale) for tensor, scale in scales.items())
    return CalibrationCache("100300", CacheAlgorithm.ENTROPY_2, entries)


def converted(folder: Path, scales: Mapping[str, float], body: str = BODY) -> FromCache:
    path = saved(folder, body)
    program, found = opened(path)
    return from_cache(program, found, cache(scales), aliases=folded_names(onnx.load(path).graph))


def feed() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)


def fake(values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    scale = np.float32(scale)
    return (np.clip(np.rint(values / scale), -128, 127) * scale).astype(np.float32)


def conv(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A 1 × 1 convolution with fake-quantized weights: (n, c, h, w) with (o, c)."""
    scale = np.float32(np.abs(weight).max(axis=1, keepdims=True) / 127)
    return np.einsum("nchw,oc->nohw", x, np.rint(weight / scale) * scale).astype(np.float32)


def test_the_outputs_are_those_of_the_scales_put_in_directly(tmp_path: Path) -> None:
    made = converted(tmp_path, SCALES)
    assert made.ranges.left_float == ()
    out = run(written(tmp_path, made.export), x=feed())["y"]
    factor = np.float32([1, 2]) / np.sqrt(np.float32([1, 4]) + np.float32(1e-5))
    first = conv(fake(feed(), 0.03), np.float32([[1, 2], [3, 4]]) * factor[:, None])
    norm = first + (np.float32([1, 2]) - np.float32([0, 1]) * factor).reshape(1, 2, 1, 1)
    second = conv(fake(norm, 0.05), np.float32([[4, 3], [2, -9]])) + fake(norm, 0.05)
    expected = conv(fake(np.maximum(second, 0), 0.11), np.float32([[1, 2], [1, 2]]))
    # a value may fall to the next level where sums were made in another order: one step of r, times a weight
    assert np.mean(np.abs(out - expected) > 1e-4) < 0.02
    assert np.abs(out - expected).max() < 0.11 * 3.01


def test_the_scales_of_the_cache_are_in_the_graph_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scales = {name: float(np.float32(rng.uniform(1e-6, 1))) for name in SCALES}
    model = written(tmp_path, converted(tmp_path, scales).export)
    held = {each.name: float(onnx.numpy_helper.to_array(each)) for each in model.graph.initializer if not each.dims}
    assert {name: held[f"int8/{name}_scale"] for name in ("x", "bn_out", "r")} == {
        name: scales[name] for name in ("x", "bn_out", "r")
    }


def test_entries_that_no_quantized_input_has_are_named(tmp_path: Path) -> None:
    assert converted(tmp_path, SCALES).ranges.unused == ("y",)


def test_a_layer_without_its_entry_is_left_in_floating_point_with_the_reason(tmp_path: Path) -> None:
    made = converted(tmp_path, {"x": 0.03, "r": 0.11})
    reason = "the cache has no entry for the tensor 'bn_out'"
    assert made.ranges.left_float == (LeftFloat("second", "second", reason), LeftFloat("sum", "sum", reason))
    assert made.export.int8 == ("first", "third")
    assert readers(written(tmp_path, made.export))["second"] == ["bn_out", "*"]


def test_a_scale_that_quantizes_nothing_leaves_the_layer_in_floating_point(tmp_path: Path) -> None:
    path = saved(tmp_path, BODY)
    program, found = opened(path)
    entries = (*cache({"x": 0.03, "bn_out": 0.05}).entries, CacheEntry("r", 0x7F800000))
    broken = CalibrationCache("8510", CacheAlgorithm.MIN_MAX, entries)
    (left,) = from_cache(program, found, broken, aliases={}).ranges.left_float
    assert (left.layer, left.reason) == ("third", "the scale of 'r' is inf, which quantizes nothing")


def test_a_folded_batch_norm_is_found_under_the_name_of_its_convolution(tmp_path: Path) -> None:
    made = converted(tmp_path, {"x": 0.03, "conv_out": 0.05, "r": 0.11})
    assert made.ranges.left_float == ()
    assert made.ranges.renamed == (Renamed("bn_out", "conv_out"),)
    own = converted(tmp_path, SCALES | {"conv_out": 0.9})
    assert (own.ranges.renamed, own.ranges.unused) == ((), ("y", "conv_out"))


def test_names_with_colons_and_spaces_are_tensors_like_any_other(tmp_path: Path) -> None:
    text = HEAD + "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> { [mm] y = MatMul(x, w) }"
    model = onnx.parser.parse_model(text)
    model.graph.input[0].name = model.graph.node[0].input[0] = "block: 1 (in)"
    onnx.save(model, tmp_path / "m.onnx")
    program, found = opened(tmp_path / "m.onnx")
    made = from_cache(program, found, cache({"block: 1 (in)": 0.5}), aliases={})
    out = run(written(tmp_path, made.export), **{"block: 1 (in)": np.float32([[1.2, 0.3]])})
    np.testing.assert_allclose(out["y"], [[1 + 3 * 0.5, 2 + 4 * 0.5]], rtol=0.01)


def test_the_cache_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none of the model's 4 layers; .*'x'"):
        converted(tmp_path, {"data": 0.5})
