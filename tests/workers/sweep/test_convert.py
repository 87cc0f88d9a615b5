"""Conversions as units of work: what they leave, how they fail, and what becomes of them when a worker dies."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from service.domain.states import ConversionState, ResourceState, UnitState
from service.store import conversions
from service.store.leftovers import remove_leftovers
from service.store.tables import UnitRow
from tests.workers.installation import NETWORK, Installation, onnx_bytes
from workers.reconciler import reconcile

CACHE = b"TRT-8510-MinMaxCalibration\nx: 3ca3d70a\nr: 3cf5c28f\n"
PART = b"TRT-8510-MinMaxCalibration\nx: 3ca3d70a\nelsewhere: 3cf5c28f\n"


def qdq(installation: Installation, cache: bytes = CACHE, **options: object) -> dict[str, bytes]:
    made = installation.conversion(model=installation.model(), calibration=installation.cache(cache), **options)
    installation.run_until()
    row, files = installation.converted(made)
    assert row.state == ConversionState.SUCCEEDED, row.problem
    return files


def outputs(model: bytes, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    found: np.ndarray = onnxruntime.InferenceSession(model, options).run(None, {"x": x})[0]
    return found


def test_a_cache_becomes_qdq_and_every_layer_is_accounted_for(installation: Installation) -> None:
    made = installation.conversion(model=installation.model(), calibration=installation.cache(PART))
    installation.run_until()
    row, files = installation.converted(made)
    assert row.summary == {
        "int8": 1, "left_float": 1, "entries": 2, "unused": 1, "merged": None, "findings": row.summary["findings"]
    }  # fmt: skip
    assert set(files) == {"qdq.onnx", "conversion.json"}
    details = json.loads(files["conversion.json"])
    reason = "the cache has no entry for the tensor 'r'"
    assert details["left_float"] == [{"layer": "second", "name": "second", "reason": reason}]
    assert (details["int8"], details["unused"]) == (["first"], ["elsewhere"])
    assert len(details["lint"]) == row.summary["findings"]
    onnx.checker.check_model(onnx.load_from_string(files["qdq.onnx"]), full_check=True)


def test_there_and_back_is_the_same_cache_and_the_same_network(installation: Installation) -> None:
    files = qdq(installation)
    model = installation.model(files["qdq.onnx"])
    back = installation.conversion(model=model, algorithm="MinMaxCalibration", tensorrt_version="8510")
    installation.run_until()
    assert installation.resource(model).info == {"quantized": True, "layers": 0, "pairs": 2}
    row, again = installation.converted(back)
    assert row.state == ConversionState.SUCCEEDED, row.problem
    assert set(again) == {"float32.onnx", "calibration.cache", "conversion.json"}
    assert again["calibration.cache"] == CACHE
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    # its weights are the values that their int8 levels stand for: at most half a level of the largest from the original
    assert np.abs(outputs(again["float32.onnx"], x) - outputs(onnx_bytes(), x)).max() < 0.1
    assert "QuantizeLinear" not in {node.op_type for node in onnx.load_from_string(again["float32.onnx"]).graph.node}


def test_options_reach_the_graph(installation: Installation) -> None:
    whole = onnx.load_from_string(qdq(installation, weights="per_tensor")["qdq.onnx"])
    scales = [each for each in whole.graph.initializer if each.name.endswith("_scale")]
    assert {tuple(each.dims) for each in scales} == {()}
    half = onnx.load_from_string(qdq(installation, PART, half=True)["qdq.onnx"])
    assert "Cast" in {node.op_type for node in half.graph.node}


def test_a_conversion_waits_for_the_check_of_its_model(installation: Installation) -> None:
    model = installation.model()
    made = installation.conversion(model=model, calibration=installation.cache(CACHE))
    with installation.context.database.read() as session:
        (unit,) = session.query(UnitRow).filter(UnitRow.subject_id == made)
        assert unit.state == UnitState.WAITING
    installation.hints()
    installation.step()
    assert installation.hints() == ["onnxruntime"]
    installation.run_until()
    assert installation.converted(made)[0].state == ConversionState.SUCCEEDED


def test_a_model_that_is_rejected_fails_the_conversions_that_wait_for_it(installation: Installation) -> None:
    model = installation.model(b"no model at all")
    made = installation.conversion(model=model, calibration=installation.cache(CACHE))
    installation.run_until()
    row, files = installation.converted(made)
    assert (row.state, row.problem_code, files) == (ConversionState.FAILED, "rejected-file", {})
    assert row.problem == f"the model was rejected: {installation.resource(model).problem}"


FAILING = {
    "the cache of another model": ("invalid-input", "none of the model's 2 layers", None, b"data: 3ca3d70a\n"),
    "a quantized model": ("model-quantized", "quantized already", "qdq", b"x: 3ca3d70a\n"),
    "no pairs": ("invalid-input", "no Q/DQ pair", None, None),
}


@pytest.mark.parametrize(("code", "words", "kind", "entries"), FAILING.values(), ids=FAILING)
def test_what_cannot_be_converted_says_why_at_the_first_attempt(
    installation: Installation, code: str, words: str, kind: str | None, entries: bytes | None
) -> None:
    model = installation.model(qdq(installation)["qdq.onnx"] if kind else None)
    given = {"calibration": installation.cache(b"TRT-8510-MinMaxCalibration\n" + entries)} if entries else {}
    made = installation.conversion(model=model, **given)
    installation.run_until()
    row, files = installation.converted(made)
    assert (row.state, row.problem_code, files) == (ConversionState.FAILED, code, {})
    assert words in str(row.problem)
    with installation.context.database.read() as session:
        (unit,) = session.query(UnitRow).filter(UnitRow.subject_id == made)
    assert (unit.state, unit.attempts) == (UnitState.DONE, 1)


def test_a_worker_that_dies_loses_nothing_and_one_that_wakes_up_late_writes_nothing(
    installation: Installation,
) -> None:
    made = installation.conversion(model=installation.model(), calibration=installation.cache(CACHE))
    installation.step()
    late = installation.claim()
    assert late is not None
    installation.let_expire(late)
    reconcile(installation.context)
    other = installation.again()
    again = other.step()
    assert again is not None
    assert (again.unit_id, again.token) == (late.unit_id, late.token + 2)
    before = installation.everything()
    installation.run(late)
    assert installation.everything() == before
    assert installation.converted(made)[0].state == ConversionState.SUCCEEDED


def test_a_conversion_that_loses_its_worker_again_and_again_fails_and_says_so(installation: Installation) -> None:
    made = installation.conversion(model=installation.model(), calibration=installation.cache(CACHE))
    installation.step()
    for _ in range(installation.context.settings.max_attempts):
        lease = installation.claim()
        assert lease is not None
        installation.let_expire(lease)
        reconcile(installation.context)
    row, _ = installation.converted(made)
    assert (row.state, row.problem_code) == (ConversionState.FAILED, "conversion-failed")
    assert "(convert) lost its worker 3 times" in str(row.problem)


def test_an_error_of_our_own_is_tried_again_up_to_the_cap(installation: Installation) -> None:
    model, cache = installation.model(), installation.cache(CACHE)
    installation.step()
    made = installation.conversion(model=model, calibration=cache)
    installation.context.blobs.delete(installation.resource(model).sha256)
    installation.run_until()
    row, _ = installation.converted(made)
    assert str(row.problem).startswith("converting failed 3 times, last with FileNotFoundError")


def test_a_conversion_that_is_deleted_meanwhile_leaves_nothing(installation: Installation) -> None:
    made = installation.conversion(model=installation.model(), calibration=installation.cache(CACHE))
    installation.step()
    lease = installation.claim()
    assert lease is not None
    with installation.context.database.write() as session:
        conversions.remove(session, made)
    before = installation.everything()
    installation.run(lease)
    assert installation.everything() == before


def test_files_of_a_conversion_stay_as_long_as_it_does(installation: Installation) -> None:
    model = installation.model()
    made = installation.conversion(model=model, calibration=installation.cache(CACHE))
    installation.run_until()
    context = installation.context
    assert remove_leftovers(context.database, context.blobs, older_than=-1) == 0
    with context.database.write() as session:
        conversions.remove(session, made)
    assert remove_leftovers(context.database, context.blobs, older_than=-1) == 2
    assert installation.resource(model).state == ResourceState.READY


def test_a_model_quantized_in_another_way_is_rejected_as_ever(installation: Installation) -> None:
    network = NETWORK.replace(
        "[first] h = Gemm <transB = 1> (x, a)",
        """[q] q, s, z = DynamicQuantizeLinear(x)
      [dq] d = DequantizeLinear(q, s, z)
      [first] h = Gemm <transB = 1> (d, a)""",
    )
    model = installation.model(onnx_bytes(network))
    installation.step()
    row = installation.resource(model)
    assert row.state == ResourceState.REJECTED
    assert "quantized already" in str(row.problem)


def test_a_sweep_of_a_quantized_model_that_was_still_being_checked_fails_with_the_reason(
    installation: Installation,
) -> None:
    files = qdq(installation)
    sweep_id = installation.sweep(model=installation.model(files["qdq.onnx"]))
    installation.run_until()
    row = installation.row(sweep_id)
    assert (row.state, row.problem_code) == ("failed", "model-quantized")
    assert "upload the fp32 one" in str(row.problem)
