"""Which execution provider runs what. None of a GPU is run here: what they are given is checked, not what they do."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.domain.errors import Unavailable
from service.domain.layers import Variant, controls
from tests.workers.backends.ranges import calibrated
from workers.backends import onnx_providers
from workers.backends import onnxruntime as backend_module
from workers.backends.onnx_providers import (
    CPU,
    CUDA,
    TENSORRT,
    provider_of,
    refuse_unusable,
    session_providers,
    usable_providers,
)
from workers.backends.onnxruntime import OnnxModel, OnnxRuntimeBackend
from workers.backends.protocol import OpenSettings
from workers.capabilities import from_document, to_document


@pytest.mark.parametrize(
    ("device", "asked", "provider"),
    [("cpu", "cuda", CPU), ("cpu", "tensorrt", CPU), ("cuda:1", "cuda", CUDA), ("cuda:0", "tensorrt", TENSORRT)],
)
def test_the_device_decides_and_the_setting_only_on_a_gpu(device: str, asked: Any, provider: str) -> None:
    assert provider_of(device, asked) == provider


def test_each_provider_has_those_behind_it_that_take_what_it_cannot_run() -> None:
    assert session_providers(CPU, "cpu") == [CPU]
    cuda = (CUDA, {"device_id": 1, "use_tf32": 0})
    assert session_providers(CUDA, "cuda:1") == [cuda, CPU]
    engines = (TENSORRT, {"device_id": 1, "trt_int8_enable": True})
    assert session_providers(TENSORRT, "cuda:1", int8=True) == [engines, cuda, CPU]


def test_the_capability_names_the_providers_with_which_a_session_can_be_made() -> None:
    found = OnnxRuntimeBackend().capability()
    assert found.providers[0] == CPU
    assert set(found.providers) <= set(onnxruntime.get_available_providers())
    assert ("cuda:0" in found.devices) is (CUDA in found.providers)
    assert from_document(to_document(found)) == found


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_provider_that_does_not_work_here_is_refused_with_those_that_do(provider: str) -> None:
    if provider in usable_providers():
        pytest.skip("this machine has it")
    with pytest.raises(Unavailable, match=f"cannot use {provider} on this machine, it can use {CPU}"):
        refuse_unusable(provider)


@pytest.mark.parametrize("environment", [{}, {"NVIDIA_TF32_OVERRIDE": "1"}], ids=["unset", "on"])
def test_tensorrt_is_refused_where_its_fp32_would_be_tf32(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.setattr(onnx_providers, "usable_providers", lambda: (CPU, CUDA, TENSORRT))
    with pytest.raises(Unavailable, match=r"NVIDIA_TF32_OVERRIDE: .* set it to 0"):
        refuse_unusable(TENSORRT, environment)
    refuse_unusable(TENSORRT, {"NVIDIA_TF32_OVERRIDE": "0"})
    refuse_unusable(CUDA, environment)


TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[n,4] x) => (float[n,3] y)
<float[4,4] w = {1,0.5,0,-1, 0,1,0.25,0, 2,0,1,0, 0,-1,0,1}, float[4,3] v = {1,2,3, 4,-5,6, 7,8,-9, 1,-1,1}>
{ [first] h = MatMul(x, w) [act] r = Relu(h) [second] y = MatMul(r, v) }"""


def test_tensorrt_is_given_the_whole_graph_with_int8_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is given runs on the CPU here, and computes what fake quantization does."""
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(TEXT).SerializeToString())
    batch = {"x": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)}
    reference = calibrated(OnnxRuntimeBackend().open(path, OpenSettings()), batch)
    variants = [*controls(["first", "second"]), Variant(name="v", int8=frozenset({"second"}))]
    expected = {each.variant.name: (each.outputs or {})["y"] for each in reference.evaluate([batch], variants)}
    given: list[tuple[bytes, str, bool]] = []

    def on_the_cpu(model: OnnxModel, content: bytes, options: Any, provider: str, *, int8: bool = False) -> Any:
        given.append((content, provider, int8))
        return onnxruntime.InferenceSession(content, options, providers=[CPU])

    monkeypatch.setattr(OnnxModel, "_opened", on_the_cpu)
    monkeypatch.setattr(backend_module, "refuse_unusable", lambda provider: None)
    model = calibrated(OnnxRuntimeBackend().open(path, OpenSettings(device="cuda:0", gpu_provider="tensorrt")), batch)
    assert {provider for _, provider, _ in given} == {CUDA}, "what flows inside is looked at without an engine"
    assert model.facts.cost_per_layer
    given.clear()
    found = {each.variant.name: (each.outputs or {})["y"] for each in model.evaluate([batch], variants)}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
    assert {provider for _, provider, _ in given} == {TENSORRT}
    kinds = [[node.op_type for node in onnx.load_from_string(content).graph.node] for content, _, _ in given]
    assert all(each.count("MatMul") == 2 for each in kinds), "no piece of the graph"
    assert [int8 for _, _, int8 in given] == ["QuantizeLinear" in each for each in kinds]
    whole = max((onnx.load_from_string(content) for content, _, _ in given), key=lambda each: len(each.graph.node))
    assert [each.data_type for each in whole.graph.initializer if len(each.dims) == 2] == [onnx.TensorProto.INT8] * 2
