"""The TensorRT backend over engines that ONNX Runtime runs from the very bytes that TensorRT would be given."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.domain.errors import InvalidInput, Unavailable
from service.domain.layers import Variant, controls
from service.domain.settings import WeightGranularity
from tests.workers import plugins
from tests.workers.backends.ranges import calibrated
from workers.backends.onnxruntime import OnnxRuntimeBackend
from workers.backends.protocol import OpenSettings, PluginLibraries
from workers.backends.tensorrt.backend import TensorRTBackend, native_maker
from workers.backends.tensorrt.seam import BuildRequest, EngineFailure


@dataclass
class RuntimeEngine:
    """An engine that ONNX Runtime runs; its inspector lists int8 where a DequantizeLinear feeds a node."""

    model: onnx.ModelProto
    ignored: frozenset[str]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        options = onnxruntime.SessionOptions()
        if any(node.domain for node in self.model.graph.node):
            options.register_custom_ops_library(str(plugins.library()))
        content = self.model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    def information(self) -> str:
        dequantized = {
            name for node in self.model.graph.node if node.op_type == "DequantizeLinear" for name in node.output
        }
        layers = []
        for node in self.model.graph.node:
            kinds = ["Int8" if name in dequantized and node.name not in self.ignored else "FP32" for name in node.input]
            inputs = [{"Name": name, "Format/Datatype": kind} for name, kind in zip(node.input, kinds, strict=True)]
            kind = {"QuantizeLinear": "Quantize", "DequantizeLinear": "Dequantize"}.get(node.op_type, node.op_type)
            layers.append(
                {"Name": "fused", "LayerType": kind, "Inputs": inputs, "Metadata": f"[ONNX Layer: {node.name}]"}
            )
        return json.dumps({"Layers": layers})


@dataclass
class RuntimeMaker:
    """Builds such engines. ``broken``: nodes that cannot be built in int8; ``ignored``: left in floating point."""

    broken: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    requests: list[BuildRequest] = field(default_factory=list)
    identity: str = "CPU/1"
    implicit: bool = True

    def build(self, request: BuildRequest) -> bytes:
        self.requests.append(request)
        model = onnx.load_from_string(request.model)
        onnx.checker.check_model(model, full_check=True)
        if any(
            broken in node.name for broken in self.broken for node in model.graph.node if "Quantize" in node.op_type
        ):
            raise EngineFailure("build failed: no tactic")
        return request.model

    def load(self, plan: bytes) -> RuntimeEngine:
        return RuntimeEngine(onnx.load_from_string(plan), self.ignored)


@pytest.fixture
def path(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    weights = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 10)}
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n,3,8,8] x) => (float[n,10] y) {\n'
        "[conv1] a = Conv <pads=[1,1,1,1]> (x, w1)\n[relu1] b = Relu(a)\n"
        "[conv2] c = Conv <pads=[1,1,1,1]> (b, w2)\n[add] d = Add(b, c)\n[relu2] e = Relu(d)\n"
        "[pool] p = GlobalAveragePool(e)\n[flat] f = Flatten(p)\n[fc] y = MatMul(f, w3)\n}"
    )
    for name, shape in weights.items():
        value = rng.normal(size=shape).astype(np.float32) * 0.2
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def batch(size: int = 4) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(size).normal(size=(size, 3, 8, 8)).astype(np.float32)}


def opened(path: Path, maker: RuntimeMaker, **settings: Any) -> Any:
    backend = TensorRTBackend(lambda device: maker, path.parent / "cache")
    return calibrated(backend.open(path, OpenSettings(device="cuda:0", **settings)), batch())


def variants(model: Any) -> list[Variant]:
    ids = [each.id for each in model.facts.layers]
    return [*controls(ids), *(Variant(name=each, int8=frozenset({each})) for each in ids)]


@pytest.mark.parametrize("granularity", list(WeightGranularity))
def test_what_tensorrt_is_given_computes_what_fake_quantization_does(path, granularity) -> None:
    """Int8 weights with a DQ behind them against fake-quantized weights: the same numbers, bit for bit nearly."""
    model = opened(path, RuntimeMaker(), weights=granularity)
    reference = calibrated(OnnxRuntimeBackend().open(path, OpenSettings(weights=granularity)), batch())
    assert [each.id for each in model.facts.layers] == [each.id for each in reference.facts.layers]
    batches = [batch(4), batch(3)]
    wanted = {(each.variant.name, each.batch): each.outputs for each in reference.evaluate(batches, variants(model))}
    found = list(model.evaluate(batches, variants(model)))
    assert len(found) == len(wanted) == 2 * len(variants(model))
    for each in found:
        assert each.failure is None
        # a level's rounding may differ where sums are formed in another order; a wrong scale gives 1e-2
        np.testing.assert_allclose(each.outputs["y"], wanted[each.variant.name, each.batch]["y"], atol=2e-4)
    assert not np.allclose(wanted["conv1", 0]["y"], wanted["fp32", 0]["y"], atol=2e-4)


def test_the_weights_of_int8_layers_are_int8_and_all_are_embedded(path) -> None:
    maker = RuntimeMaker()
    model = opened(path, maker)
    list(model.evaluate([batch()], [Variant(name="v", int8=frozenset({"conv1"}))]))
    sent = onnx.load_from_string(maker.requests[0].model)
    kinds = [each.data_type for each in sent.graph.initializer if len(each.dims) == 4]
    assert sorted(kinds) == sorted([onnx.TensorProto.INT8, onnx.TensorProto.FLOAT])
    assert all(each.data_location == onnx.TensorProto.DEFAULT for each in sent.graph.initializer)


def test_a_build_that_fails_and_a_layer_that_is_not_realised_are_failures_and_the_rest_goes_on(path) -> None:
    model = opened(path, RuntimeMaker(broken=frozenset({"conv1"}), ignored=frozenset({"conv2"})))
    wanted = [Variant(name=each, int8=frozenset({each})) for each in ("conv1", "conv2", "fc")]
    found = {each.variant.name: each for each in model.evaluate([batch()], wanted)}
    assert found["conv1"].failure == "build failed: no tactic"
    assert (
        found["conv2"].failure == "not realised: 'conv2' runs in floating point, in the engine's layer 'fused' (Conv)"
    )
    assert found["conv1"].outputs is None
    assert found["conv2"].outputs is None
    assert found["fc"].failure is None
    assert found["fc"].outputs is not None


def test_engines_are_built_once_for_every_later_shard_of_the_same_shapes(path) -> None:
    maker = RuntimeMaker()
    model = opened(path, maker)
    for _ in range(2):
        list(model.evaluate([batch()], variants(model)))
    # fp32 and its repetition are one engine
    assert len(maker.requests) == len(variants(model)) - 1
    list(opened(path, maker).evaluate([batch()], variants(model)))
    assert len(maker.requests) == len(variants(model)) - 1
    assert maker.requests[0].inputs[0].most == (4, 3, 8, 8)


def test_implicit_int8_gives_the_fp32_graph_and_what_stands_beside_it(path) -> None:
    maker = RuntimeMaker()
    model = opened(path, maker, implicit_int8=True)
    amax: dict[str, float] = model._amax
    list(model.evaluate([batch()], [Variant(name="v", int8=frozenset({"conv1"}))]))
    (request,) = maker.requests
    assert not [node for node in onnx.load_from_string(request.model).graph.node if "Quantize" in node.op_type]
    assert request.implicit is not None
    assert request.implicit.nodes == {"conv1"}
    # the ReLU behind it is fused; its output is what conv2 reads, and its own range is known from there
    assert request.implicit.ranges == {"x": amax["conv1:0"], "a": amax["conv1:0"], "b": amax["conv2:0"]}


def test_implicit_int8_leaves_the_scales_of_weights_to_tensorrt(path) -> None:
    with pytest.raises(InvalidInput, match="per channel"):
        opened(path, RuntimeMaker(), implicit_int8=True, weights=WeightGranularity.PER_TENSOR)


def test_a_tensorrt_without_implicit_int8_refuses_it_when_the_model_is_opened(path) -> None:
    maker = RuntimeMaker(identity="GPU/11.4.0.106", implicit=False)
    with pytest.raises(InvalidInput, match=r"quantization: TensorRT 11\.4\.0\.106 .* use explicit") as caught:
        opened(path, maker, implicit_int8=True)
    assert caught.value.field == "quantization"
    assert opened(path, maker).facts.layers


def test_where_tensorrt_is_missing_a_model_opens_and_only_running_it_is_refused(path) -> None:
    backend = TensorRTBackend(folder=path.parent)
    capability = backend.capability()
    if capability.available:
        pytest.skip("TensorRT is here")
    assert capability.reason
    model = calibrated(backend.open(path, OpenSettings()), batch())
    with pytest.raises(Unavailable, match="TensorRT cannot run here"):
        list(model.evaluate([batch()], variants(model)))
    with pytest.raises(Unavailable):
        native_maker(path.parent, "cuda:0")


def test_the_cost_of_a_variant_is_declared_to_be_its_engine(path) -> None:
    assert opened(path, RuntimeMaker()).facts.cost_per_layer
    assert not OnnxRuntimeBackend().open(path, OpenSettings()).facts.cost_per_layer


def with_plugin(folder: Path, maker: RuntimeMaker, **settings: Any) -> Any:
    """The model of tests/workers/plugins.py; TensorRT's own library is a file that stands for one."""
    trt_library = folder / "trt.so"
    trt_library.write_bytes(b"plugins")
    libraries = PluginLibraries((plugins.library(),), (trt_library,))
    backend = TensorRTBackend(lambda device: maker, folder / "cache")
    asked = OpenSettings(device="cuda:0", libraries=libraries, **settings)
    return calibrated(backend.open(plugins.saved(folder), asked), {"x": plugins.samples()})


def test_a_plugin_is_given_with_pairs_on_both_sides_and_computes_in_float(tmp_path) -> None:
    """The engine's inspector shows no int8 at the plugin: the pairs around it are what was asked for."""
    maker = RuntimeMaker(ignored=frozenset({"split"}))
    model = with_plugin(tmp_path, maker)
    x = {"x": plugins.samples(8, seed=1)}
    wanted = {each.variant.name: each.outputs for each in model._onnx.evaluate([x], variants(model))}
    for each in model.evaluate([x], variants(model)):
        assert each.failure is None
        np.testing.assert_allclose(each.outputs["scores"], wanted[each.variant.name]["scores"], atol=1e-5)
    assert {each.plugins for each in maker.requests} == {("ai.onnx.contrib::NegPos",)}
    assert set(model.facts.libraries.values()) == {plugins.library().name, "trt.so"}


def test_implicit_int8_has_the_ranges_of_a_plugins_own_outputs(tmp_path) -> None:
    maker = RuntimeMaker()
    model = with_plugin(tmp_path, maker, implicit_int8=True)
    list(model.evaluate([{"x": plugins.samples()}], [Variant(name="v", int8=frozenset({"split"}))]))
    (request,) = maker.requests
    assert request.implicit is not None
    assert request.implicit.ranges == {
        "h": model._amax["split:0"],
        "negative": model._amax["split=>0"],
        "positive": model._amax["split=>1"],
    }
