"""The two numbers by hand, and what they are where they are not defined."""

import math

import numpy as np
import pytest

from workers.calibration.statistics import sqnr_db, weight_ratio


def test_the_weight_ratio_is_the_largest_over_the_mean_magnitude() -> None:
    assert weight_ratio(np.array([[1, -3], [0, 2]], np.float32)) == 2.0
    assert weight_ratio(np.full((2, 2, 2), -5e-20, np.float32)) == 1.0


@pytest.mark.parametrize("weight", [np.zeros((2, 2)), np.zeros(0), np.array([1, np.nan]), np.array([1, np.inf])])
def test_a_weight_without_a_mean_has_no_ratio(weight: np.ndarray) -> None:
    assert weight_ratio(weight.astype(np.float32)) is None


def test_ten_times_the_noise_are_ten_decibels_less() -> None:
    assert sqnr_db(500.0, 5.0) == pytest.approx(20.0, rel=1e-15)
    assert sqnr_db(500.0, 50.0) == pytest.approx(10.0, rel=1e-15)
    assert sqnr_db(1.0, 4.0) == pytest.approx(-6.0206, abs=1e-4)


def test_numbers_far_apart_do_not_overflow() -> None:
    assert sqnr_db(1e300, 1e-300) == pytest.approx(6000.0, rel=1e-15)


@pytest.mark.parametrize(
    ("signal", "noise", "reason"),
    [
        (0.0, 0.0, "its output is zero throughout"),
        (1.0, 0.0, "int8 changes nothing of its output"),
        (math.nan, 1.0, "its output holds NaN or infinite values"),
        (1.0, math.inf, "its output holds NaN or infinite values"),
    ],
)
def test_where_there_is_no_ratio_the_reason_stands(signal: float, noise: float, reason: str) -> None:
    assert sqnr_db(signal, noise) == reason
