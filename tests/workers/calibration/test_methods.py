"""What comes out where a tensor has no range, or a plain one; and that every method finds its function."""

from typing import Any

import numpy as np
import pytest

from service.domain.settings import CalibrationMethod, CalibrationSettings
from tests.workers.calibration.distributions import TENSORS, counted
from workers.calibration.histogram import Grid, Histogram
from workers.calibration.methods import Unusable, amax

METHODS = list(CalibrationMethod)
GOOD = np.ones(10, dtype=np.float32)


def found(batches: list[Any], method: CalibrationMethod) -> float | Unusable:
    return amax(counted(batches), CalibrationSettings(method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1,), (4, 3), ()], ids=str)
@pytest.mark.parametrize("value", [-2.5, 2.5, 1e-40])
def test_a_constant_tensors_range_is_the_constant(
    method: CalibrationMethod, shape: tuple[int, ...], value: float
) -> None:
    assert found([np.full(shape, value, dtype=np.float32)] * 2, method) == abs(np.float32(value))


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_is_zero_throughout_has_the_range_zero(method: CalibrationMethod) -> None:
    assert found([np.zeros((3, 4), dtype=np.float32), np.full(2, -0.0, dtype=np.float32)], method) == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_one_magnitude_with_both_signs_keeps_it_to_a_bins_width(method: CalibrationMethod) -> None:
    assert found([np.array([-3, 3, 3], np.float32)], method) == pytest.approx(3, rel=1 / 2048)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["first batch", "later batch", "among good values"])
def test_what_is_not_finite_is_no_range_and_says_so(method: CalibrationMethod, bad: float, where: str) -> None:
    tainted = np.where(np.arange(10) == 5, bad, GOOD).astype(np.float32)
    batches = {
        "first batch": [np.full(3, bad, dtype=np.float32), GOOD],
        "later batch": [GOOD, GOOD, tainted, GOOD],
        "among good values": [tainted],
    }[where]
    assert found(batches, method) == Unusable("its input held NaN or infinite values during calibration")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batches", [[], [np.zeros((0, 3), dtype=np.float32)]], ids=["none", "without values"])
def test_an_edge_that_nothing_came_by_has_no_range_and_says_so(method: CalibrationMethod, batches: list[Any]) -> None:
    assert found(batches, method) == Unusable("its input was empty during calibration")


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_batch_among_others_changes_nothing(method: CalibrationMethod) -> None:
    batch = TENSORS["normal"].astype(np.float32)
    assert found([batch, batch[:0]], method) == found([batch], method)


@pytest.mark.parametrize("method", METHODS)
def test_two_halves_have_the_range_of_the_whole(method: CalibrationMethod) -> None:
    batches = [TENSORS[name].astype(np.float32) for name in ("uniform", "normal", "negative", "after a ReLU")]
    grid = Grid.of(batches[0])
    halves = counted(batches[2:], grid).merge(counted(batches[:2], grid))
    settings = CalibrationSettings(method=method)
    assert amax(halves, settings) == amax(counted(batches), settings)


def test_each_method_is_another_function_of_the_same_histogram() -> None:
    histogram: Histogram = counted([TENSORS["log-normal"].astype(np.float32)])
    ranges = {method: amax(histogram, CalibrationSettings(method=method)) for method in METHODS}
    assert ranges.pop(CalibrationMethod.TRT_MINMAX) == ranges[CalibrationMethod.MAX]
    # at cutoff 1 and the same share, the legacy calibrator is the percentile
    assert ranges.pop(CalibrationMethod.TRT_LEGACY) == ranges[CalibrationMethod.PERCENTILE]
    assert len(set(ranges.values())) == len(ranges)


def test_parameters_reach_their_methods() -> None:
    histogram = counted([np.linspace(0, 1, 10_001, dtype=np.float32)])
    asked = [
        ({"method": "percentile", "percentile": 75.0}, 0.75),
        ({"method": "trt_legacy", "quantile": 0.75}, 0.75),
        ({"method": "trt_legacy", "quantile": 1.0, "cutoff": 0.25}, 0.25),
    ]
    for settings, expected in asked:
        assert amax(histogram, CalibrationSettings.model_validate(settings)) == pytest.approx(expected, abs=1 / 2048)
