"""A sweep that takes its ranges from a calibration cache: the same scores, no pass over samples, reasons that name."""

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from service.domain.states import SweepState, UnitKind
from service.store.tables import UnitRow
from tests.workers.installation import Installation, onnx_bytes
from workers.sweep.plan import MERGE_ROUND

HEADER = "TRT-8510-EntropyCalibration2\n"
ONE = f"{HEADER}x: 3ca3d70a\nr: 3cf5c28f\n".encode()

# branches with ranges of their own meet in a Concat, where an engine wants one scale
BRANCHES = """g (float[N,4] x) => (float[N,3] scores)
<float[4,4] a = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float one = {0.01}, float[3,8] b = {
 1,0.5,-1,0.25,1,0.5,-1,0.25, -1,1,0.5,-0.25,1,1,1,1, 0.5,-1,1,0.125,-1,1,-1,1},
 float[3,4] e = {1,0.5,-1,0.25, -1,1,0.5,-0.25, 0.5,-1,1,0.125}>
{ [small] s = Mul(x, one)
  [left] l = Gemm <transB = 1> (s, a)
  [right] r = Gemm <transB = 1> (x, a)
  [joined] c = Concat <axis = 1> (l, r)
  [also] d = Gemm <transB = 1> (l, e)
  [last] f = Gemm <transB = 1> (c, b)
  [sum] scores = Add(f, d) }"""

# the batch norm is folded away: a cache may have its output under its own name, or the convolution's
NORMED = """g (float[N,4] x) => (float[N,3] scores)
<int64[2] square = {0,4}, int64[4] image = {0,1,2,2}, float[2,1,1,1] w = {1,-2}, float[2] s = {1,2}, float[2] t = {0,1},
 float[3,8] b = {1,0.5,-1,0.25,1,0.5,-1,0.25, -1,1,0.5,-0.25,1,1,1,1, 0.5,-1,1,0.125,-1,1,-1,1}, int64[2] flat = {0,8}>
{ [image] i = Reshape(x, image)
  [conv] conv_out = Conv(i, w)
  [norm] bn_out = BatchNormalization(conv_out, s, t, t, s)
  [other] k = Conv(bn_out, u)
  [flat] f = Reshape(k, flat)
  [out] scores = Gemm <transB = 1> (f, b) }"""
NORMED = NORMED.replace("int64[2] square = {0,4},", "float[2,2,1,1] u = {1,0.5,-1,2},")


def finished(installation: Installation, **settings: Any) -> tuple[str, dict[str, Any]]:
    sweep_id = installation.sweep(**settings)
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED, installation.row(sweep_id).problem
    return sweep_id, installation.report(sweep_id)


def scores(report: dict[str, Any]) -> dict[str, Any]:
    """Every figure that was measured, and what follows from them."""
    rows = [
        {name: each[name] for name in ("layer", "state", "rank", "significant", "score")} for each in report["layers"]
    ]
    return {"layers": rows, "controls": report["controls"], "decision": report["decision"]}


@pytest.mark.parametrize("graph", [None, BRANCHES, NORMED], ids=["a chain", "branches", "a folded batch norm"])
@pytest.mark.parametrize("mode", ["one_on", "one_off"])
def test_the_cache_that_a_sweep_leaves_gives_the_same_scores_when_it_is_given_back(
    installation: Installation, graph: str | None, mode: str
) -> None:
    asked: dict[str, Any] = {
        "model": installation.model(None if graph is None else onnx_bytes(graph)),
        "dataset": installation.dataset(),
        "mode": mode,
        "budget": {"max_drop": 100.0},  # layers stay in int8, so that there are files that deploy
    }
    first, calibrated = finished(installation, **asked)
    cache = installation.cache(installation.files(first)["calibration.cache"])
    with installation.context.database.write() as session:  # nothing may be found that the first one measured
        session.execute(UnitRow.__table__.update().values(content_key=None))
    second, given = finished(installation, **asked, calibration={"cache": cache})
    assert {each["state"] for each in calibrated["layers"]} == {"measured"}
    assert scores(given) == scores(calibrated)
    assert installation.files(second)["calibration.cache"] == installation.files(first)["calibration.cache"]


def test_the_report_says_which_cache_and_no_method(installation: Installation) -> None:
    cache = installation.cache(ONE)
    _, report = finished(installation, calibration={"cache": cache})
    found = report["calibration"]
    assert found.pop("cache").items() >= {
        "id": cache, "algorithm": "EntropyCalibration2", "tensorrt_version": "8510", "entries": 2
    }.items()  # fmt: skip
    assert set(found.values()) == {None, 0}
    assert report["settings"]["calibration"] == {"cache": cache}
    assert "calibrated-on-evaluation-set" not in {each["code"] for each in report["warnings"]}


def test_ranges_are_127_times_the_scales(installation: Installation) -> None:
    sweep_id = installation.sweep(calibration={"cache": installation.cache(ONE)})
    installation.run_until(UnitKind.MEASURE)
    amax = installation.row(sweep_id).amax["amax"]
    assert amax == {"first:0": 127 * float(np.float32(0.02)), "second:0": 127 * float(np.float32(0.03))}


def test_no_sample_is_counted_and_statistics_are_those_that_need_no_count(installation: Installation) -> None:
    sweep_id, report = finished(installation, calibration={"cache": installation.cache(ONE)})
    with installation.context.database.read() as session:
        (unit,) = session.scalars(
            select(UnitRow).where(UnitRow.sweep_id == sweep_id, UnitRow.kind == UnitKind.CALIBRATE)
        )
    assert (unit.round, unit.result_sha256) == (MERGE_ROUND, None)
    for each in report["layers"]:
        assert each["statistics"]["activations"] == {}
        assert each["statistics"]["weight_ratio"] > 1
        assert each["statistics"]["sqnr_db"] > 10


def test_a_layer_without_its_entry_is_failed_with_the_tensors_name(installation: Installation) -> None:
    cache = installation.cache(f"{HEADER}x: 3ca3d70a\nr: 7f800000\n".encode())
    _, report = finished(installation, calibration={"cache": cache})
    first, second = report["layers"]
    assert (first["state"], second["state"]) == ("measured", "failed")
    assert second["reason"] == "the scale of 'r' is inf, which quantizes nothing"
    (warning,) = [each for each in report["warnings"] if each["code"] == "cache-incomplete"]
    assert "1 of 2 layers" in warning["message"]
    assert "'r'" in warning["message"]


def test_a_layer_that_is_excluded_needs_no_entry(installation: Installation) -> None:
    cache = installation.cache(f"{HEADER}x: 3ca3d70a\n".encode())
    _, report = finished(installation, calibration={"cache": cache}, exclude=["second"])
    assert [each["state"] for each in report["layers"]] == ["measured", "excluded"]
    assert "cache-incomplete" not in {each["code"] for each in report["warnings"]}


def test_the_cache_of_another_model_ends_the_sweep_with_the_first_name_that_is_missing(
    installation: Installation,
) -> None:
    sweep_id = installation.sweep(calibration={"cache": installation.cache(f"{HEADER}data: 3ca3d70a\n".encode())})
    installation.run_until()
    row = installation.row(sweep_id)
    assert (row.state, row.problem_code) == (SweepState.FAILED, "no-layers")
    assert "none of the model's 2 layers; for example first: the cache has no entry for the tensor 'x'" in str(
        row.problem
    )


def test_the_name_of_the_convolution_serves_for_the_batch_norm_that_was_folded_into_it(
    installation: Installation,
) -> None:
    cache = installation.cache(f"{HEADER}i: 3ca3d70a\nconv_out: 3d4ccccd\nf: 3ca3d70a\n".encode())
    _, report = finished(installation, model=installation.model(onnx_bytes(NORMED)), calibration={"cache": cache})
    assert {each["state"] for each in report["layers"]} == {"measured"}
    ranges = {each["layer"]["name"]: each["amax"] for each in report["layers"]}
    assert ranges["other"] == {"other:0": 127 * float(np.float32(0.05))}


@pytest.mark.parametrize("method", ["racing", "probe", "probe_then_exact"])
def test_every_method_takes_ranges_from_a_cache(installation: Installation, method: str) -> None:
    _, report = finished(installation, calibration={"cache": installation.cache(ONE)}, method=method)
    assert {each["state"] for each in report["layers"]} <= {"measured", "estimated"}


def test_the_same_scales_are_measured_once_and_other_scales_anew(installation: Installation) -> None:
    model, dataset = installation.model(), installation.dataset()
    other = ONE.replace(b"3cf5c28f", b"3cf5c290")
    warnings = []
    for content in (ONE, ONE.replace(b"8510", b"8600"), other):
        asked = {"model": model, "dataset": dataset, "calibration": {"cache": installation.cache(content)}}
        warnings.append({each["code"]: each["message"] for each in finished(installation, **asked)[1]["warnings"]})
    assert "results-reused" not in warnings[0]
    assert warnings[1]["results-reused"].startswith("15 of 15 ")
    assert warnings[2]["results-reused"].startswith("9 of 15 ")  # fp32, fp32 repeated, and the layer whose scale stayed
