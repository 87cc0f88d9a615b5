"""Layers by TensorRT's profiler: whose the times are, and the engines that are timed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from service.domain.costs import Precision
from service.domain.layers import Layer, Operation, Variant
from tests.workers.backends.ranges import calibrated
from workers.backends.onnx_profiling import ProfileSettings
from workers.backends.protocol import OpenSettings
from workers.backends.tensorrt.backend import TensorRTBackend
from workers.backends.tensorrt.inspector import EngineLayer
from workers.backends.tensorrt.seam import BuildRequest, EngineFailure
from workers.backends.tensorrt.timed_layers import UNKNOWN, timed_runs
from workers.engine.latency import layer_latencies, timed_graph
from workers.models.onnx_layers import Found
from workers.sweep.latency import NO_CONVERSIONS, NOT_HALF, costs_by_tensorrt


def found(name: str, op: Operation = Operation.CONV, macs: int = 9) -> Found:
    return Found(Layer(id=name, name=name, op=op, activations=(), macs=macs), name, (0,))


CONV = EngineLayer("conv1 + add + relu", "CaskConvolution", frozenset({"conv1", "add", "relu"}), 1, True)
HEAD = EngineLayer("fc", "CaskGemmMatrixMultiply", frozenset({"fc"}), 0, False)
QUANTIZE = EngineLayer("q", "Quantize", frozenset({"x_QuantizeLinear"}), 0, None)
REFORMAT = EngineLayer("Reformatting CopyNode for Input 0 to conv1", "Reformat", frozenset({"conv1"}), 0, None)
LAYERS = (QUANTIZE, REFORMAT, CONV, HEAD)
FOUND = [found("add", Operation.ADD, 0), found("conv1"), found("fc")]
TIMES = [{"q": 1e-6, REFORMAT.name: 1e-6, CONV.name: 6e-6, "fc": 1e-6, "odd": 1e-6}] * 6


@pytest.fixture
def runs():
    return timed_runs(LAYERS, TIMES, FOUND, Precision.INT8, samples=2)


def test_a_fused_layer_is_that_of_its_nodes_and_the_largest_has_its_time(runs) -> None:
    latencies = layer_latencies(runs, {"conv1": "conv1", "add": "add", "fc": "fc"})
    assert latencies["conv1"].value == pytest.approx(3e-6)
    assert (latencies["add"].value, latencies["add"].method) == (0.0, "within the kernel of conv1")


def test_what_stayed_in_floating_point_is_told(runs) -> None:
    latencies = layer_latencies(runs, {"conv1": "conv1", "add": "add", "fc": "fc"})
    assert latencies["fc"].method.endswith("computed in floating point (CaskGemmMatrixMultiply)")
    assert "floating" not in latencies["conv1"].method


def test_conversions_and_what_nobody_lists_have_their_shares(runs) -> None:
    graph = timed_graph(runs)
    assert graph.layers == pytest.approx(0.7)
    assert graph.conversions == pytest.approx(0.2)
    assert graph.other == {UNKNOWN: pytest.approx(0.1)}
    assert graph.outside == pytest.approx(0.0)


@dataclass
class Clocked:
    """An engine whose layers are the graph's nodes; each takes as many microseconds as it has inputs."""

    model: onnx.ModelProto
    runs: list[int] = field(default_factory=list)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError("an engine that is timed is not measured")

    def information(self) -> str:
        dequantized = {
            name for node in self.model.graph.node if node.op_type == "DequantizeLinear" for name in node.output
        }
        layers = [
            {
                "Name": f"engine {node.name}",
                "LayerType": {"QuantizeLinear": "Quantize", "DequantizeLinear": "Dequantize"}.get(node.op_type, "Kgen"),
                "Inputs": [{"Format/Datatype": "Int8" if name in dequantized else "FP32"} for name in node.input],
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
            for node in self.model.graph.node
        ]
        return json.dumps({"Layers": layers})

    def profile(self, feeds: Mapping[str, Any], runs: int) -> list[dict[str, float]]:
        self.runs.append(runs)
        return [{f"engine {node.name}": len(node.input) * 1e-6 for node in self.model.graph.node} for _ in range(runs)]


class ClockedMaker:
    """Builds such engines; ``fails``: no engine with int8 in it."""

    identity = "CPU/1"

    def __init__(self, *, fails: bool = False) -> None:
        self._fails = fails
        self.engines: list[Clocked] = []

    def build(self, request: BuildRequest) -> bytes:
        if self._fails and b"QuantizeLinear" in request.model:
            raise EngineFailure("build failed: no tactic")
        return request.model

    def load(self, plan: bytes) -> Clocked:
        self.engines.append(Clocked(onnx.load_from_string(plan)))
        return self.engines[-1]


BATCH = {"x": np.ones((4, 3, 8, 8), np.float32)}
WANTED = {
    Precision.FP32: Variant(name="fp32", int8=frozenset()),
    Precision.INT8: Variant(name="all_int8", int8=frozenset({"conv1", "fc"})),
}


def opened(folder: Path, maker: ClockedMaker) -> Any:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n,3,8,8] x) => (float[n,10] y) {\n'
        "[conv1] a = Conv (x, w1)\n[pool] p = MaxPool <kernel_shape=[8,8]> (a)\n[flat] f = Flatten(p)\n"
        "[fc] y = MatMul(f, w3)\n}"
    )
    for name, shape in {"w1": (8, 3, 1, 1), "w3": (8, 10)}.items():
        value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.save(model, folder / "m.onnx")
    backend = TensorRTBackend(lambda device: maker, folder / "cache")
    return calibrated(backend.open(folder / "m.onnx", OpenSettings(device="cuda:0")), BATCH)


def test_each_variants_engine_is_timed_and_its_warm_up_left_out(tmp_path: Path) -> None:
    maker = ClockedMaker()
    found_ = opened(tmp_path, maker).timed(BATCH, WANTED, runs=8, warm_up=3)
    assert [each.precision for each in found_] == [Precision.FP32, Precision.INT8]
    assert [each.runs for each in maker.engines] == [[11], [11]]
    assert {(each.samples, len(each.wall)) for each in found_} == {(4, 8)}
    for each in found_:
        assert layer_latencies(each, {"conv1": "conv1"})["conv1"].value == pytest.approx(2e-6 / 4)
    assert timed_graph(found_[0]).conversions == 0
    assert timed_graph(found_[1]).conversions > 0


def test_an_engine_that_is_not_built_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(EngineFailure, match="no tactic"):
        opened(tmp_path, ClockedMaker(fails=True)).timed(BATCH, WANTED, runs=1, warm_up=0)


QUICK = ProfileSettings("cuda:0", runs=6, warm_up=1)


def test_the_costs_of_a_sweep_by_tensorrt_are_those_of_its_engines(tmp_path: Path) -> None:
    model = opened(tmp_path, ClockedMaker())
    active = frozenset({"conv1", "fc"})
    costs = model.facts.costs
    found_ = costs_by_tensorrt(model, costs, BATCH, int8=active, settings=QUICK)
    assert {each.layer: each.latency[Precision.INT8].value for each in found_.layers} == {
        "conv1": pytest.approx(2e-6 / 4),
        "fc": pytest.approx(2e-6 / 4),
    }
    assert (found_.measured_on, found_.batch_size) == ("cuda:0, TensorRT", 4)
    assert found_.boundaries == costs.boundaries
    assert found_.notes == (NO_CONVERSIONS, NOT_HALF)


def test_engines_that_are_not_built_leave_a_note(tmp_path: Path) -> None:
    model = opened(tmp_path, ClockedMaker(fails=True))
    costs = model.facts.costs
    found_ = costs_by_tensorrt(model, costs, BATCH, int8=frozenset({"fc"}), settings=QUICK)
    assert found_.layers == costs.layers
    assert found_.notes == ("no latency was measured: build failed: no tactic",)
