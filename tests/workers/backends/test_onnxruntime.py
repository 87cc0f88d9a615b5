"""The ONNX Runtime backend against fake quantization written out in NumPy, and its failures as values."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.domain.errors import InvalidInput, RejectedFile, Unavailable
from service.domain.layers import Variant, controls
from service.domain.settings import WeightGranularity
from workers.backends.onnxruntime import OnnxRuntimeBackend
from workers.backends.protocol import OpenedModel, OpenSettings

LATEST = 25  # the newest opset that this ONNX Runtime takes


def saved(folder: Path, body: str, opset: int = 18) -> Path:
    path = folder / "m.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{body}'), path)
    return path


def opened(folder: Path, body: str, opset: int = 18, **settings: object) -> OpenedModel:
    return OnnxRuntimeBackend().open(saved(folder, body, opset), OpenSettings(**settings))


def outputs(model: OpenedModel, x: np.ndarray, *int8: str) -> Mapping[str, np.ndarray]:
    (done,) = model.evaluate([{"x": x}], [Variant(name="v", int8=frozenset(int8))])
    assert done.failure is None
    assert done.outputs is not None
    return done.outputs


def fake(values: np.ndarray, amax: np.ndarray | float) -> np.ndarray:
    """The definition: round(value / (amax / 127)), halves to even, clipped to [-128, 127]."""
    scale = np.asarray(amax, dtype=np.float64) / 127
    return np.clip(np.round(values.astype(np.float64) / scale), -128, 127) * scale


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def listed(array: np.ndarray) -> str:
    kind = "float[" + ",".join(map(str, array.shape)) + "]"
    return f"{kind} w = {{" + ",".join(f"{value:.9g}" for value in array.ravel()) + "}"


LINEAR = {
    "Gemm": ((4, 3), 0, "y = Gemm(x, w)", lambda x, w: x @ w),
    "Gemm transB": ((3, 4), 1, "y = Gemm <transB = 1> (x, w)", lambda x, w: x @ w.T),
    "MatMul": ((4, 3), 0, "y = MatMul(x, w)", lambda x, w: x @ w),
}


@pytest.mark.parametrize("opset", [13, 18, LATEST])
@pytest.mark.parametrize(("shape", "reduced", "node", "compute"), LINEAR.values(), ids=LINEAR.keys())
@pytest.mark.parametrize("granularity", list(WeightGranularity))
def test_a_linear_layer_equals_the_definition(tmp_path, shape, reduced, node, compute, opset, granularity) -> None:
    weight, x, amax = random(*shape), 3 * random(8, 4), 2.5
    body = f"g (float[n,4] x) => (float[n,3] y) <{listed(weight)}> {{ [fc] {node} }}"
    model = opened(tmp_path, body, opset, weights=granularity)
    model.set_amax({"fc:0": amax})
    per_channel = granularity is WeightGranularity.PER_CHANNEL
    weight_amax = np.abs(weight).max(axis=reduced if per_channel else None, keepdims=True)
    expected = compute(fake(x, amax), fake(weight, weight_amax))
    # sums of four float32 products
    np.testing.assert_allclose(outputs(model, x, "fc")["y"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs(model, x)["y"], compute(x, weight), rtol=1e-5, atol=1e-5)


POINTWISE = {
    "Conv": ((5, 4, 1, 1), (1, 2, 3), "Conv", lambda x, w: np.einsum("nchw,oc->nohw", x, w[:, :, 0, 0])),
    "ConvTranspose": (
        (4, 5, 1, 1),
        (0, 2, 3),
        "ConvTranspose",
        lambda x, w: np.einsum("nchw,co->nohw", x, w[..., 0, 0]),
    ),
}


@pytest.mark.parametrize(("shape", "reduced", "operator", "compute"), POINTWISE.values(), ids=POINTWISE.keys())
def test_a_convolution_equals_the_definition(tmp_path, shape, reduced, operator, compute) -> None:
    weight, x, amax = random(*shape), random(2, 4, 3, 3), 1.5
    body = f"g (float[n,4,3,3] x) => (float[n,5,3,3] y) <{listed(weight)}> {{ [c] y = {operator}(x, w) }}"
    model = opened(tmp_path, body)
    model.set_amax({"c:0": amax})
    expected = compute(fake(x, amax), fake(weight, np.abs(weight).max(axis=reduced, keepdims=True)))
    np.testing.assert_allclose(outputs(model, x, "c")["y"], expected, rtol=1e-5, atol=1e-5)


def test_only_the_chosen_layer_changes_where_two_share_input_and_weight(tmp_path: Path) -> None:
    weight, x = random(4, 3), random(8, 4)
    body = (
        f"g (float[n,4] x) => (float[n,3] y, float[n,3] z) <{listed(weight)}> "
        "{ [a] y = MatMul(x, w) [b] z = MatMul(x, w) }"
    )
    model = opened(tmp_path, body)
    model.set_amax({"a:0": 1.0, "b:0": 1.0})
    fp32, one = outputs(model, x), outputs(model, x, "b")
    assert np.array_equal(one["y"], fp32["y"])
    assert not np.array_equal(one["z"], fp32["z"])
    assert np.array_equal(outputs(model, x, "a")["y"], one["z"])


def test_both_inputs_of_a_product_are_quantized(tmp_path: Path) -> None:
    body = "g (float[n,3,4] x, float[n,4,2] b) => (float[n,3,2] y) { [p] y = MatMul(x, b) }"
    model = opened(tmp_path, body)
    model.set_amax({"p:0": 1.0, "p:1": 2.0})
    x, b = random(2, 3, 4), random(2, 4, 2)
    (done,) = model.evaluate([{"x": x, "b": b}], [Variant(name="v", int8=frozenset({"p"}))])
    np.testing.assert_allclose(done.outputs["y"], fake(x, 1.0) @ fake(b, 2.0), rtol=1e-5, atol=1e-5)


def test_a_tensor_that_is_always_zero_stays_zero(tmp_path: Path) -> None:
    body = "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {0,1,0,2}> { [fc] y = MatMul(x, w) }"
    model = opened(tmp_path, body)
    model.set_amax({"fc:0": 0.0})
    assert outputs(model, np.zeros((3, 2), np.float32), "fc")["y"].tolist() == [[0, 0]] * 3


def test_observe_shows_every_edge_once_for_each_batch(tmp_path: Path) -> None:
    body = (
        "g (float[n,4] x) => (float[n,4] y) <float[4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}> "
        "{ [a] s = MatMul(x, w) r = Relu(s) [b] t = MatMul(r, w) [add] y = Add(t, r) }"
    )
    model, x, seen = opened(tmp_path, body), random(3, 4), {}
    model.observe([{"x": x}], lambda edge, tensor: seen.setdefault(edge, []).append(tensor))
    assert set(seen) == {edge for layer in model.facts.layers for edge in layer.activations} == {"a:0", "b:0", "add:1"}
    np.testing.assert_array_equal(seen["a:0"], [x])
    np.testing.assert_array_equal(seen["add:1"], [np.maximum(x, 0)])


def test_a_model_of_a_fixed_batch_takes_smaller_ones(tmp_path: Path) -> None:
    body = "g (float[4,2] x) => (float[4,2] y) <float[2,2] w = {1,2,3,4}> { [fc] y = MatMul(x, w) }"
    model, x, seen = opened(tmp_path, body), random(3, 2), []
    assert model.facts.batch_size == 4
    np.testing.assert_allclose(outputs(model, x)["y"], x @ [[1, 2], [3, 4]], rtol=1e-6, atol=1e-6)
    model.observe([{"x": x}], lambda edge, tensor: seen.append(tensor))
    np.testing.assert_array_equal(seen[0], x)


def test_control_flow_bodies_keep_the_weights_that_only_they_read(tmp_path: Path) -> None:
    large = np.eye(20, dtype=np.float32)
    body = (
        f"g (float[n,20] x, bool c) => (float[n,20] y) <{listed(large)}, {listed(2 * large).replace(' w ', ' k ')}> "
        "{ [fc] z = MatMul(x, w) y = If (c) <then_branch = t () => (float[n,20] a) { a = MatMul(z, k) },"
        " else_branch = e () => (float[n,20] b) { b = Identity(z) }> }"
    )
    model, x = opened(tmp_path, body), random(2, 20)
    (done,) = model.evaluate([{"x": x, "c": np.array(True)}], controls([])[:1])
    np.testing.assert_allclose(done.outputs["y"], 2 * x, rtol=1e-6)
    assert len(model.facts.skipped) == 1


def test_a_variant_that_breaks_comes_back_with_the_reason_and_the_others_go_on(tmp_path: Path) -> None:
    body = (
        "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> "
        "{ [fc] z = MatMul(x, w) [p] g = MatMul(z, w) s = Sqrt(z) y = Add(g, s) }"
    )
    model = opened(tmp_path, body)
    model.set_amax({"fc:0": 1e-3, "p:0": 1.0})
    # in fp32 z is [0.5, 0]; clipped inputs make it negative, and its root NaN
    x = np.array([[2.0, -0.5]], np.float32)
    variants = [Variant(name=name, int8=frozenset({name})) for name in ("fc", "p")]
    by_name = {each.variant.name: each for each in model.evaluate([{"x": x}], variants)}
    broken, good = by_name["fc"], by_name["p"]
    assert broken.outputs is None
    assert "NaN" in str(broken.failure)
    assert good.failure is None


def test_a_weight_with_nan_fails_only_its_layer(tmp_path: Path) -> None:
    path = saved(tmp_path, "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> { [fc] y = MatMul(x, w) }")
    model = onnx.load(path)
    weight = np.array([[np.nan, 1], [2, 3]], np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, path)
    open_model = OnnxRuntimeBackend().open(path, OpenSettings())
    open_model.set_amax({"fc:0": 1.0})
    (done,) = open_model.evaluate([{"x": random(2, 2)}], [Variant(name="v", int8=frozenset({"fc"}))])
    assert done.failure == "its weight holds NaN or infinite values"


def test_what_the_runtime_refuses_is_a_value_in_evaluate_and_an_error_of_the_caller_in_observe(tmp_path: Path) -> None:
    body = "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> { z = Relu(x) [fc] y = MatMul(z, w) }"
    model, wrong = opened(tmp_path, body), {"x": np.zeros((2, 7), np.float32)}
    (done,) = model.evaluate([wrong], controls([])[:1])
    assert done.outputs is None
    assert done.failure
    with pytest.raises(InvalidInput, match="calibration"):
        model.observe([wrong], lambda edge, tensor: None)


def test_int8_without_a_range_is_our_own_mistake(tmp_path: Path) -> None:
    model = opened(tmp_path, "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> { [fc] y = MatMul(x, w) }")
    with pytest.raises(KeyError):
        outputs(model, random(2, 2), "fc")


def test_a_model_without_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedFile, match="no quantizable layer"):
        opened(tmp_path, "g (float[n,2] x) => (float[n,2] y) { y = Relu(x) }")


def test_a_model_that_the_runtime_cannot_load_is_refused_when_opened(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]> g (float[n,2] x) => (float[n,2] y) '
    text += "<float[2,2] w = {1,2,3,4}> { z = MatMul(x, w) y = com.microsoft.NoSuchThing(z) }"
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    with pytest.raises(RejectedFile, match="NoSuchThing"):
        OnnxRuntimeBackend().open(path, OpenSettings())


def test_a_device_that_is_not_here_is_not_silently_replaced(tmp_path: Path) -> None:
    if "cuda:0" in OnnxRuntimeBackend().capability().devices:
        pytest.skip("this machine has the device")
    with pytest.raises(Unavailable, match="CUDA"):
        opened(
            tmp_path,
            "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> { [fc] y = MatMul(x, w) }",
            device="cuda:0",
        )


def test_the_file_is_left_as_it_was(tmp_path: Path) -> None:
    path = saved(tmp_path, "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> { [fc] y = MatMul(x, w) }")
    before = path.read_bytes()
    model = OnnxRuntimeBackend().open(path, OpenSettings())
    model.set_amax({"fc:0": 1.0})
    outputs(model, random(2, 2), "fc")
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def test_capability_names_versions_and_devices() -> None:
    capability = OnnxRuntimeBackend().capability()
    assert capability.available
    assert capability.devices[0] == "cpu"
    assert {"onnx", "onnxruntime"} <= set(capability.versions)
