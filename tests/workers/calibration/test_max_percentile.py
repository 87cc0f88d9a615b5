"""Ranges against pytorch-quantization's own calibrators, and against the exact quantile where those are not exact.

``MaxCalibrator`` and, for one batch or many, ``HistogramCalibrator`` 2.1.3 give the same range as ours, with one
exception: where the percentile is a whole number of values (99.9 % of 30,000), a bin may just fill the share, and
there the rounding of its cumulative sum decides whether that bin or the next one with values is taken, often hundreds
of bins away. So equality is asked of sizes without such a tie; with one, the reference is the quantile itself.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytorch_quantization.calib import HistogramCalibrator, MaxCalibrator

from service.domain.settings import CalibrationSettings
from tests.workers.calibration.distributions import TENSORS, counted, growing
from workers.calibration import methods
from workers.calibration.histogram import BINS, MOST_BINS, Grid

ROUNDED = 1.0001  # the edges of bins are rounded too
PERCENTILES = (90.0, 99.0, 99.9, 99.99)


def amax(batches: list[Any], percentile: float | None = None) -> float:
    asked = {"method": "max"} if percentile is None else {"method": "percentile", "percentile": percentile}
    found = methods.amax(counted(batches), CalibrationSettings.model_validate(asked))
    assert isinstance(found, float)
    return found


def quantile(batches: list[Any], percentile: float) -> float:
    """The smallest |x| that at least so many per cent of all values do not exceed, in whole numbers."""
    values = np.sort(np.abs(np.concatenate([np.ravel(each) for each in batches])))
    return float(values[math.ceil(Fraction(str(percentile)) * len(values) / 100) - 1])


def pytorch_quantizations(batches: list[Any], percentile: float) -> float:
    calibrator = HistogramCalibrator(8, None, False)
    for each in batches:
        calibrator.collect(torch.from_numpy(each))
    return float(calibrator.compute_amax("percentile", percentile=percentile))


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_the_maximum_of_one_batch_is_pytorch_quantizations(tensor: Any) -> None:
    batch = tensor.astype(np.float32)
    calibrator = MaxCalibrator(8, None, False)
    calibrator.collect(torch.from_numpy(batch))
    assert amax([batch]) == float(calibrator.compute_amax())


def test_the_maximum_of_many_batches_is_pytorch_quantizations() -> None:
    batches = [each.astype(np.float32) for each in TENSORS.values()]
    calibrator = MaxCalibrator(8, None, False)
    for each in batches:
        calibrator.collect(torch.from_numpy(each))
    assert amax(batches) == float(calibrator.compute_amax())


@pytest.mark.parametrize("percentile", PERCENTILES)
@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_the_percentile_of_one_batch_is_pytorch_quantizations(tensor: Any, percentile: float) -> None:
    batch = tensor.astype(np.float32)
    assert amax([batch], percentile) == pytest.approx(pytorch_quantizations([batch], percentile), rel=1e-6)


@pytest.mark.parametrize("percentile", [*PERCENTILES, 100.0])
@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_the_percentile_of_one_batch_is_within_a_bin_of_the_quantile(tensor: Any, percentile: float) -> None:
    batch = tensor.astype(np.float32)
    width = float(np.abs(batch).max()) / BINS
    assert amax([batch], percentile) == pytest.approx(quantile([batch], percentile), abs=width * ROUNDED, rel=0)


@pytest.mark.parametrize("percentile", PERCENTILES)
@pytest.mark.parametrize("factor", [1.01, 1.5, 3.0])
def test_the_percentile_over_growing_batches_is_within_a_bin_of_pytorch_quantizations(
    factor: float, percentile: float
) -> None:
    """A value near an edge may be counted on either side of it: their edges are in float32."""
    batches = growing(factor)
    width = float(np.abs(batches[0]).max()) / BINS
    theirs = pytorch_quantizations(batches, percentile)
    assert amax(batches, percentile) == pytest.approx(theirs, abs=width * ROUNDED, rel=1e-6)


@pytest.mark.parametrize("percentile", [*PERCENTILES, 100.0])
@pytest.mark.parametrize("factor", [0.5, 1.01, 1.5, 3.0, 7.0])
@pytest.mark.parametrize("size", [5000, 5001], ids=["with ties", "without"])
def test_the_percentile_over_growing_batches_is_within_a_bin_of_the_quantile(
    factor: float, percentile: float, size: int
) -> None:
    batches = growing(factor, size)
    width = float(np.abs(batches[0]).max()) / BINS
    assert amax(batches, percentile) == pytest.approx(quantile(batches, percentile), abs=width * ROUNDED, rel=0)


@settings(deadline=None, max_examples=100)
@example(batches=[[1.5], [952.0]], percentile=60.0)  # more than the most bins: merged in pairs
@given(
    batches=st.lists(
        st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=30), min_size=1, max_size=5
    ).filter(lambda found: max(map(abs, found[0])) > 1),
    percentile=st.sampled_from([60.0, 75.0, 90.0, 99.9]),
)
def test_any_batches_give_the_quantile_within_a_bin(batches: list[list[float]], percentile: float) -> None:
    arrays = [np.array(each, dtype=np.float32) for each in batches]
    grid, largest = Grid.of(arrays[0]), max(float(np.abs(each).max()) for each in arrays)
    width = math.ldexp(grid.first / BINS, grid.level(largest))
    assert amax(arrays, percentile) == pytest.approx(quantile(arrays, percentile), abs=width * ROUNDED, rel=0)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_of_any_size_give_what_one_pass_gives(size: int) -> None:
    values = np.random.default_rng(0).standard_normal((64, 50)).astype(np.float32)
    batches = [values[start : start + size] for start in range(0, 64, size)]
    assert amax(batches) == amax([values])
    width = float(np.abs(values).max()) / BINS
    assert amax(batches, 99.0) == pytest.approx(amax([values], 99.0), abs=2 * width, rel=0)


@pytest.mark.parametrize("factor", [1e3, 1e9, 1e30])
@pytest.mark.parametrize("percentile", [60.0, 75.0, 99.0])
def test_batches_far_beyond_the_first_merge_bins_and_lose_no_count(factor: float, percentile: float) -> None:
    """At most 2^20 bins, and never fewer than half of that: a 2^19th of the range is the coarsest width."""
    first = np.random.default_rng(0).uniform(0.5, 1, 500)
    batches = [first, first * 1.5, first * factor]
    width = max(float(first.max()) / BINS, 2 * factor / MOST_BINS)
    assert amax(batches, percentile) == pytest.approx(quantile(batches, percentile), abs=width, rel=0)


def test_float16_is_counted_in_more_than_its_own_precision() -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float16)
    width = float(np.abs(values).max()) / BINS
    assert amax([values], 99.9) == pytest.approx(quantile([values], 99.9), abs=width * ROUNDED, rel=0)


def test_zeros_before_the_first_value_are_counted() -> None:
    zeros, ones = np.zeros(900, dtype=np.float32), np.ones(100, dtype=np.float32)
    halves = np.full(1, 0.5, dtype=np.float32)
    for batches in ([zeros, ones, halves], [ones, zeros, halves]):
        assert amax(batches, 95.0) == pytest.approx(1.0, abs=1 / BINS)
        assert amax(batches, 80.0) <= 1 / BINS


def test_a_percentile_among_the_zeros_of_a_sparse_tensor_does_not_wipe_it_out() -> None:
    sparse = np.append(np.zeros(99), 1.0)
    assert amax([sparse], 90.0) == 1 / BINS
