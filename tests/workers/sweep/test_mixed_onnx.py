"""The graph that a sweep leaves computes what was verified."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.domain.caches import CacheAlgorithm
from service.domain.states import SweepState
from service.inspection.calibration_cache import read_cache
from service.store import sweeps
from tests.workers.installation import NETWORK, Installation, answers, npz_bytes, onnx_bytes

SAMPLES = 48


def left_by(installation: Installation, **settings: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
    sweep_id = installation.sweep(**{"metric": {"name": "mse"}, **settings})
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED, installation.row(sweep_id).problem
    with installation.context.database.read() as session:
        rows = sweeps.artifacts(session, sweep_id)
    return {row.name: installation.context.blobs.read(row.sha256) for row in rows}, installation.report(sweep_id)


def outputs(model: bytes, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return found


def samples() -> Mapping[str, np.ndarray]:
    return np.load(io.BytesIO(npz_bytes(SAMPLES)))


@pytest.mark.parametrize("weights", ["per_channel", "per_tensor"])
def test_the_files_metric_is_the_one_that_was_verified(installation: Installation, weights: str) -> None:
    files, report = left_by(installation, budget={"max_drop": 100.0}, exclude=["first"], weights=weights)
    x = samples()["x"]
    mse = np.square(outputs(files["mixed.onnx"], x) - outputs(onnx_bytes(), x)).mean()
    verified = report["decision"]["chosen"]["score"]["metric"]
    assert mse > 0
    assert mse == pytest.approx(verified["value"], rel=1e-4)
    checks = json.loads(files["mixed.json"])
    assert checks["int8"] == ["second"]
    assert checks["rescaled"] == []
    assert {each["rule"] for each in checks["lint"]} == ({"per-tensor-weight"} if weights == "per_tensor" else set())
    assert checks["compared"]["samples"] == SAMPLES
    assert checks["compared"]["simulated"]["scores"] < 1e-6
    # integer kernels round the same levels, and add up in another order
    assert checks["compared"]["fused"]["scores"] < 1e-2


@pytest.mark.parametrize("metric", ["mse", "top1", "MulticlassAccuracy"])
def test_the_files_own_metric_is_measured_beside_the_variants_on_the_same_samples(
    installation: Installation, metric: str
) -> None:
    args = {"num_classes": 3} if metric[0] == "M" else {}
    files, report = left_by(
        installation, budget={"max_drop": 100.0}, exclude=["first"], metric={"name": metric, "args": args}
    )
    found = report["exported"]
    assert found == json.loads(files["mixed.json"])["metric"]
    assert (found["samples"], found["fallback_precision"], found["failures"]) == (SAMPLES, "fp32", {})
    verified = report["decision"]["chosen"]["score"]["metric"]
    assert found["variant"]["value"] == pytest.approx(verified["value"])
    for score in (found["simulated"], found["fused"]):
        assert score["metric"]["value"] == pytest.approx(verified["value"], rel=1e-3, abs=1 / SAMPLES)
        assert score["within"] is True
    assert abs(found["simulated"]["difference"]["value"]) < 1e-6
    assert "exported-file-differs" not in {each["code"] for each in report["warnings"]}


def test_fallback_layers_are_half_precision_where_that_is_asked_for(installation: Installation) -> None:
    files, report = left_by(installation, budget={"max_drop": 100.0}, exclude=["second"], fallback_precision="fp16")
    checks, found = json.loads(files["mixed.json"]), report["exported"]
    halves = onnx.TensorProto.FLOAT16
    assert halves in {each.data_type for each in onnx.load_from_string(files["mixed.onnx"]).graph.initializer}
    assert (checks["fallback_precision"], checks["kept_float32"], found["fallback_precision"]) == ("fp16", [], "fp16")
    # what was verified has fp32 there; half precision moves the outputs by its rounding
    assert 1e-6 < checks["compared"]["simulated"]["scores"] < 1e-2
    assert found["simulated"]["difference"]["value"] != 0
    assert found["simulated"]["within"] is True


def test_half_precision_that_overflows_is_told_and_warned_of(installation: Installation) -> None:
    """The int8 layer gives out what float16 cannot hold, and the fallback layer reads that."""
    network = NETWORK.replace("{1,0,0,0,", "{60000,0,0,0,")
    x = np.random.default_rng(0).normal(size=(SAMPLES, 4)).astype(np.float32) * 8
    files, report = left_by(
        installation,
        model=installation.model(onnx_bytes(network)),
        dataset=installation.dataset(npz_bytes(x=x)),
        budget={"max_drop": 1e30},
        exclude=["second"],
        fallback_precision="fp16",
    )
    found = report["exported"]
    assert found["simulated"] is None
    assert "NaN or infinite" in found["failures"]["simulated"]
    assert {each["code"] for each in report["warnings"]} >= {"exported-file-not-measured"}
    assert json.loads(files["mixed.json"])["compared"]["simulated"] == found["failures"]["simulated"]


def test_the_graph_is_one_that_the_checker_takes_with_int8_weights(installation: Installation) -> None:
    files, _ = left_by(installation, budget={"max_drop": 100.0}, exclude=["first"])
    model = onnx.load_from_string(files["mixed.onnx"])
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("DequantizeLinear") == 2
    assert {onnx.numpy_helper.to_array(each).dtype for each in model.graph.initializer} >= {np.dtype(np.int8)}


def test_the_cache_holds_the_scale_of_every_layers_input_under_the_tensors_name(installation: Installation) -> None:
    files, report = left_by(installation, budget={"max_drop": 100.0})
    cache = read_cache(files["calibration.cache"])
    assert cache.algorithm is CacheAlgorithm.ENTROPY_2
    amax = {edge: value for each in report["layers"] for edge, value in each["amax"].items()}
    assert {each.tensor: each.amax for each in cache.entries} == {
        "x": pytest.approx(amax["first:0"]),
        "r": pytest.approx(amax["second:0"]),
    }


def test_a_file_that_differs_from_what_was_measured_says_by_how_much(installation: Installation) -> None:
    """Two branches with ranges of their own meet in a Concat: the file gives both the larger one."""
    network = """g (float[N,4] x) => (float[N,3] scores)
    <float[4,4] a = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float one = {0.01}, float[3,8] b = {
     1,0.5,-1,0.25,1,0.5,-1,0.25, -1,1,0.5,-0.25,1,1,1,1, 0.5,-1,1,0.125,-1,1,-1,1}>
    { [small] s = Mul(x, one)
      [left] l = Gemm <transB = 1> (s, a)
      [right] r = Gemm <transB = 1> (x, a)
      [joined] c = Concat <axis = 1> (l, r)
      [also] d = Gemm <transB = 1> (l, a)
      [last] e = Gemm <transB = 1> (c, b)
      [sum] f = Slice (d, zero, three, axis)
      [out] scores = Add(e, f) }"""
    network = network.replace("float one", "int64[1] zero = {0}, int64[1] three = {3}, int64[1] axis = {1}, float one")
    x = np.random.default_rng(0).normal(size=(SAMPLES, 4)).astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, x=x, labels=answers(x))
    files, report = left_by(
        installation,
        model=installation.model(onnx_bytes(network)),
        dataset=installation.dataset(buffer.getvalue()),
        budget={"max_drop": 100.0},
    )
    checks = json.loads(files["mixed.json"])
    (rescaled,) = [each for each in checks["rescaled"] if each["edge"] == "also:0"]
    assert rescaled["amax"] > 10 * rescaled["before"]
    assert checks["compared"]["simulated"]["scores"] > 1e-6
    assert report["exported"]["simulated"]["within"] is False
    (warning,) = [each for each in report["warnings"] if each["code"] == "exported-file-differs"][:1]
    assert "with Q/DQ as they stand" in warning["message"]
