"""ONNX Runtime's profile read run by run, from events as it writes them and from real runs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from service.domain.errors import Unavailable
from workers.backends.onnx_profiling import FEWEST_RUNS, GraphToTime, ProfileSettings, profiles, runs_of

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def node(name: str, op: str, ts: int, dur: int, provider: str = CPU) -> dict[str, Any]:
    args = {"op_name": op, "provider": provider}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def gpu(name: str, op: str, ts: int, dur: int) -> dict[str, Any]:
    args = {"op_name": op, "parent_name": f"{name}_kernel_time", "stream": "7"}
    return {"cat": "Kernel", "name": "implicit_gemm<float>", "ts": ts, "dur": dur, "args": args}


def whole(ts: int, dur: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "args": {}}


LOADING = {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 900, "args": {}}


class TestEvents:
    def test_each_run_has_its_own_times_in_seconds(self) -> None:
        first = [node("a", "Conv", 1001, 40), node("b", "Relu", 1050, 5), whole(1000, 60)]
        second = [node("a", "Conv", 2001, 44), node("b", "Relu", 2050, 6), whole(2000, 70)]
        one, two = runs_of([LOADING, *first, *second])
        assert (one.wall, two.wall) == pytest.approx((60e-6, 70e-6))
        assert one.kernels["a"].seconds == pytest.approx(40e-6)
        assert two.kernels["a"].seconds == pytest.approx(44e-6)
        assert (two.kernels["a"].op, two.kernels["b"].op) == ("Conv", "Relu")

    def test_what_runs_several_times_in_a_loop_adds_up(self) -> None:
        (run,) = runs_of([node("a", "Add", 1, 3), node("a", "Add", 6, 4), whole(0, 20)])
        assert run.kernels["a"].seconds == pytest.approx(7e-6)

    def test_on_a_gpu_the_time_is_that_of_its_kernels_and_not_of_the_launch(self) -> None:
        events = [
            node("a", "Conv", 10, 2, CUDA),
            gpu("a", "Conv", 12, 90),
            gpu("a", "Conv", 103, 10),
            node("shape", "Shape", 20, 3),
            whole(0, 130),
        ]
        (run,) = runs_of(events)
        assert run.kernels["a"].seconds == pytest.approx(100e-6)
        assert run.kernels["shape"].seconds == pytest.approx(3e-6)

    def test_launches_alone_are_refused(self) -> None:
        with pytest.raises(Unavailable, match="how long the GPU's kernels took"):
            runs_of([node("a", "Conv", 10, 2, CUDA), whole(0, 130)])


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[n,64] x) => (float[n,512] y) { [product] m = MatMul(x, w) [gate] y = Sigmoid(m) }"""
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = tmp_path_factory.mktemp("product") / "m.onnx"
    onnx.save(model, path)
    return path


FEEDS = {"x": np.ones((32, 64), np.float32)}


def test_every_graph_has_as_many_runs_as_were_asked_for_and_its_kernels_fit_in_them(product: Path) -> None:
    graphs = {"one": GraphToTime(product), "two": GraphToTime(product, integer_kernels=False)}
    found = profiles(graphs, FEEDS, ProfileSettings(runs=12, warm_up=2, threads=1))
    assert list(found) == ["one", "two"]
    for profile in found.values():
        assert {(each.name, each.op, len(each.seconds)) for each in profile.kernels} == {
            ("product", "MatMul", 12),
            ("gate", "Sigmoid", 12),
        }
        assert {node.name for node in profile.optimized.node} == {"product", "gate"}
        within = np.sum([each.seconds for each in profile.kernels], axis=0)
        assert (within <= np.asarray(profile.wall)).all()


def test_late_runs_are_left_out_but_for_as_many_as_an_interval_needs(product: Path) -> None:
    settings = ProfileSettings(runs=1000, warm_up=1, most_seconds=0.0, threads=1)
    assert len(profiles({"one": GraphToTime(product)}, FEEDS, settings)["one"].wall) == FEWEST_RUNS


def test_a_machine_without_the_provider_is_told(product: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has a GPU")
    with pytest.raises(Unavailable, match="CUDAExecutionProvider"):
        profiles({"one": GraphToTime(product)}, FEEDS, ProfileSettings(device="cuda:0", runs=1, warm_up=0))
