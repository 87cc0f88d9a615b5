"""What calibration decides: the ranges, the layers that cannot be in int8, and the errors that end the sweep."""

import math

import numpy as np
import pytest

from service.domain.states import SweepState, UnitKind
from tests.workers.installation import LAYERS, Installation, npz_bytes, onnx_bytes

# beside two healthy layers, one whose input is infinite (the clip makes fp32's output finite again)
INFINITE_INPUT = """g (float[N,4] x) => (float[N,3] scores)
<float[3,4] a = {1,0,0,0.5, 0,1,0,0.25, 0,0,1,-1}, float[3,3] b = {1,0.5,0, 0,1,0.5, 0.5,0,1},
 float[3,1] w = {1,2,3}, float zero = {0.0}, float low = {-1.0}, float high = {1.0}, int64[1] axes = {1}>
{ [good] h = Gemm <transB = 1> (x, a)
  n = Mul(x, zero)
  m = ReduceMax <keepdims = 1> (n, axes)
  i = Log(m)
  [endless] e = Gemm <transB = 1> (i, w)
  c = Clip(e, low, high)
  s = Sin(h)
  t = Mul(s, c)
  [last] scores = Gemm <transB = 1> (t, b) }"""

# one weight is NaN; fp32 puts a zero where it shows
NAN_WEIGHT = """g (float[N,4] x) => (float[N,3] scores)
<float[3,4] a = {1,0,0,0.5, 0,1,0,0.25, 0,0,1,-1}, float[3,4] w = {1,0,0,0, 0,1,0,0, 0,0,nan,1}, float zero = {0.0}>
{ [good] h = Gemm <transB = 1> (x, a)
  [broken] b = Gemm <transB = 1> (x, w)
  lost = IsNaN(b)
  k = Where(lost, zero, b)
  t = Sin(h)
  u = Sin(k)
  scores = Mul(t, u) }"""

FAILED = {
    "an input that is infinite": (INFINITE_INPUT, "endless", "its input held NaN or infinite values"),
    "a weight that is NaN": (NAN_WEIGHT, "broken", "its weight holds NaN or infinite values"),
}


def samples(count: int = 32, seed: int = 0) -> bytes:
    return npz_bytes(x=np.random.default_rng(seed).uniform(0.1, 1, size=(count, 4)).astype(np.float32))


@pytest.mark.parametrize(("graph", "layer", "reason"), FAILED.values(), ids=FAILED.keys())
@pytest.mark.parametrize("mode", ["one_on", "one_off"])
def test_a_layer_that_cannot_be_in_int8_is_failed_and_the_sweep_goes_on(
    installation: Installation, graph: str, layer: str, reason: str, mode: str
) -> None:
    sweep_id = installation.sweep(
        model=installation.model(onnx_bytes(graph)), dataset=installation.dataset(samples()), mode=mode
    )
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED, installation.row(sweep_id).problem
    report = installation.report(sweep_id)
    rows = {each["layer"]["name"]: each for each in report["layers"]}
    assert rows[layer]["state"] == "failed"
    assert reason in rows[layer]["reason"]
    assert (rows[layer]["score"], rows[layer]["rank"]) == (None, None)
    others = [each for name, each in rows.items() if name != layer]
    assert others
    assert {each["state"] for each in others} == {"measured"}
    assert layer not in str(report["decision"]["fallback"])


def test_the_range_is_the_largest_magnitude_of_the_calibration_samples(installation: Installation) -> None:
    x = np.array([[0, 1, 0, -3], [2, 0, 0, 0], [0, 0, 9, 0]], np.float32)
    sweep_id = installation.sweep(dataset=installation.dataset(npz_bytes(x=x)), calibration={"samples": 2})
    installation.run_until(UnitKind.MEASURE)
    # the third sample does not count; Relu(x @ a.T) of the others is at most 2: the last row of a is 1, -1, 1, -1
    assert installation.row(sweep_id).amax["amax"] == {"first:0": 3.0, "second:0": 2.0}


def test_every_layer_has_its_statistics_in_the_row_and_in_the_report(installation: Installation) -> None:
    x = np.array([[0, 1, 0, -3], [2, 0, 0, 0], [0, 0, 9, 0]], np.float32)
    sweep_id = installation.sweep(
        dataset=installation.dataset(npz_bytes(x=x)), calibration={"samples": 2}, exclude=["second"]
    )
    installation.run_until()
    first, second = (each["statistics"] for each in installation.report(sweep_id)["layers"])
    assert installation.row(sweep_id).amax["statistics"] == {"first": first, "second": second}
    # 8 of 20 weights are 1 or -1, the others 0
    assert first["weight_ratio"] == 2.5
    assert first["activations"] == {"first:0": {"low": -3.0, "high": 2.0}}
    # the scale is 3/127: -3 is a level, 1 becomes 42 · 3/127 = 1 - 1/127, 2 becomes 2 + 1/127; two outputs read each
    assert first["sqnr_db"] == pytest.approx(10 * math.log10(22 / (4 / 127**2)), abs=1e-4)
    assert first["no_sqnr"] is None
    assert second["weight_ratio"] == pytest.approx(1 / (9.5 / 15))
    assert second["activations"] == {"second:0": {"low": 0.0, "high": 2.0}}
    assert (second["sqnr_db"], second["no_sqnr"]) == (None, "it is not measured in int8")


def test_statistics_of_a_layer_that_failed_say_what_there_is_to_say(installation: Installation) -> None:
    model, dataset = installation.model(onnx_bytes(INFINITE_INPUT)), installation.dataset(samples())
    sweep_id = installation.sweep(model=model, dataset=dataset)
    installation.run_until()
    rows = {each["layer"]["name"]: each["statistics"] for each in installation.report(sweep_id)["layers"]}
    assert rows["endless"]["weight_ratio"] == pytest.approx(1.5)
    assert rows["endless"]["activations"] == {}
    assert rows["endless"]["no_sqnr"] == "it is not measured in int8"
    assert rows["good"]["sqnr_db"] > 30


def whole_sweep_problem(installation: Installation, **settings: object) -> tuple[str | None, str]:
    sweep_id = installation.sweep(**settings)
    installation.run_until()
    row = installation.row(sweep_id)
    assert row.state == SweepState.FAILED
    assert row.problem is not None
    return row.problem_code, row.problem


def test_no_layer_left_is_said_with_the_first_reason(installation: Installation) -> None:
    problem = whole_sweep_problem(
        installation,
        model=installation.model(onnx_bytes(INFINITE_INPUT)),
        dataset=installation.dataset(samples()),
        include=["endless"],
    )
    assert problem == (
        "no-layers",
        "no layer can be measured in int8; the first one: its input held NaN or infinite values during calibration",
    )


def test_calibration_samples_that_do_not_fit_the_model_are_named(installation: Installation) -> None:
    narrow = installation.dataset(npz_bytes(x=np.zeros((8, 3), np.float32)))
    code, problem = whole_sweep_problem(installation, calibration={"dataset": narrow})
    assert "'x'" in problem
    assert "3" in problem
    assert "4" in problem
    assert code is not None
    assert "Error" not in problem


def test_a_sample_that_the_model_cannot_take_ends_the_sweep_at_once(installation: Installation) -> None:
    """Not after all attempts: the same sample will be there the next time."""
    picks = """g (int64[N] x) => (float[N,2] scores)
    <float[3,4] t = {1,2,3,4, 5,6,7,8, 9,10,11,12}, float[4,2] w = {1,2,3,4,5,6,7,8}>
    { rows = Gather <axis = 0> (t, x)
      [only] scores = MatMul(rows, w) }"""
    sweep_id = installation.sweep(
        model=installation.model(onnx_bytes(picks)),
        dataset=installation.dataset(npz_bytes(x=np.array([0, 1, 2, 99], np.int64))),
    )
    installation.run_until()
    row = installation.row(sweep_id)
    assert row.state == SweepState.FAILED
    assert row.problem is not None
    assert row.problem.startswith("the model does not run on the calibration samples: ")
    assert row.problem_code == "invalid-input"


def test_every_layer_is_calibrated_when_all_is_well(installation: Installation) -> None:
    sweep_id = installation.sweep()
    installation.run_until(UnitKind.MEASURE)
    amax = installation.row(sweep_id).amax
    assert set(amax["amax"]) == {f"{layer}:0" for layer in LAYERS}
    assert amax["failed"] == {}
