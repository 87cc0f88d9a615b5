"""Entropy and MSE against pytorch-quantization 2.1.3 itself, and against slow float64 references of both.

The real entropy takes 3 s for one batch and 5 s where a later one is a little larger, so it stands beside ours for a
few tensors (``python -m benchmarks.calibration`` compares more); the references stand beside all of them. The real MSE
calls ``.cuda()``: it runs here with that one move taken out.
"""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_quantization.calib import HistogramCalibrator

from tests.workers.calibration import literal
from tests.workers.calibration.distributions import TENSORS, counted, growing
from workers.calibration.divergence import LEVELS, divergences
from workers.calibration.entropy import entropy
from workers.calibration.histogram import Grid, Histogram
from workers.calibration.mse import FIRST, mse, squared_errors

ROUNDED = 1e-6
"""Relative: their edges are float32."""


def theirs(batches: list[Any], method: str) -> float:
    calibrator = HistogramCalibrator(8, None, False)
    for each in batches:
        calibrator.collect(torch.from_numpy(each.copy()))
    return float(calibrator.compute_amax(method))


def some_ranges(bins: int) -> Any:
    return np.unique(np.append(np.arange(LEVELS, bins + 1, 67), [LEVELS + 1, 255, 256, bins - 1, bins]))


@pytest.mark.parametrize("name", ["log-normal"])
def test_the_entropy_of_one_batch_is_pytorch_quantizations(name: str) -> None:
    batch = TENSORS[name].astype(np.float32)
    assert entropy(counted([batch])) == pytest.approx(theirs([batch], "entropy"), rel=ROUNDED)


def test_the_entropy_over_growing_batches_is_pytorch_quantizations() -> None:
    batches = [TENSORS["after a ReLU"].astype(np.float32) * np.float32(scale) for scale in (1.0, 0.9, 1.07)]
    histogram = counted(batches)
    assert len(histogram.counts) > 2048
    assert entropy(histogram) == pytest.approx(theirs(batches, "entropy"), rel=ROUNDED)


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_every_divergence_is_the_literal_one(tensor: Any) -> None:
    counts = counted([tensor.astype(np.float32), 1.1 * tensor.astype(np.float32)]).counts
    ranges = some_ranges(len(counts))
    for q_of_p in (False, True):
        found = divergences(counts, ranges, levels_see_outliers=q_of_p)
        slow = [literal.divergence(counts, int(each), q_of_p=q_of_p) for each in ranges]
        np.testing.assert_allclose(found, slow, rtol=1e-9, atol=1e-12)


def test_divergences_beyond_two_to_the_31_values_are_those_of_the_shares() -> None:
    counts = counted([TENSORS["normal"].astype(np.float32)]).counts
    ranges = some_ranges(len(counts))
    few, many = (divergences(counts * times, ranges, levels_see_outliers=False) for times in (1, 2**40))
    np.testing.assert_allclose(few, many, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("repeats", [1, 7, 100, 12_345])
def test_of_equal_divergences_the_widest_range_is_taken(repeats: int) -> None:
    """Where every level has one bin that is not empty at most, nothing is lost but by clipping."""
    values = np.append(np.linspace(1 / 16, 1, 16).repeat(repeats), np.zeros(100)).astype(np.float32)
    assert entropy(counted([values])) == pytest.approx(1.0, rel=1e-12)


def test_ranges_without_a_value_do_not_decide() -> None:
    """With pytorch-quantization their NaN wins, and everything is clipped to the smallest magnitude or below."""
    histogram = counted([np.random.default_rng(0).uniform(0.9, 1, 5000).astype(np.float32)])
    assert entropy(histogram) >= 0.9
    counts = histogram.counts
    assert np.isinf(divergences(counts, np.array([500]), levels_see_outliers=True)).all()


@pytest.mark.parametrize("name", ["normal", "after a ReLU", "negative"])
def test_the_mse_of_batches_is_pytorch_quantizations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    batch = TENSORS[name].astype(np.float32)
    batches = [batch, batch * np.float32(1.3)]
    assert mse(counted(batches[:1])) == pytest.approx(theirs(batches[:1], "mse"), rel=ROUNDED)
    assert mse(counted(batches)) == pytest.approx(theirs(batches, "mse"), rel=ROUNDED)


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_every_squared_error_is_the_literal_one(tensor: Any) -> None:
    histogram = counted([tensor.astype(np.float32)])
    counts = histogram.counts
    centres = np.arange(FIRST, len(counts))
    found = squared_errors(counts, centres)
    slow = [literal.mean_squared_error(counts, 2.0, int(each)) * len(counts) for each in centres]
    np.testing.assert_allclose(found, slow, rtol=1e-7)
    assert mse(histogram) == histogram.width * (FIRST + int(np.argmin(slow)) + 0.5)


@pytest.mark.parametrize("method", [entropy, mse])
def test_a_first_batch_far_smaller_than_the_rest_is_no_matter_of_minutes(method: Any) -> None:
    """20 times: 40,960 bins, for which the real entropy takes a quarter of an hour."""
    histogram = counted([*growing(1.0, steps=1), growing(1.0, steps=1)[0] * np.float32(20)])
    assert len(histogram.counts) == 20 * 2048 + 1
    assert 0 < method(histogram) <= histogram.width * len(histogram.counts)


@pytest.mark.parametrize("method", [entropy, mse])
def test_the_histogram_is_left_as_it_was(method: Any) -> None:
    histogram = counted(growing(1.0))
    before = histogram.counts.copy()
    method(histogram)
    np.testing.assert_array_equal(histogram.counts, before)


def test_a_range_does_not_depend_on_the_scale_of_values() -> None:
    batch = TENSORS["log-normal"].astype(np.float32)
    for method in (entropy, mse):
        plain, small = (method(counted([batch * np.float32(scale)])) for scale in (1.0, 2.0**-40))
        assert small == plain * 2.0**-40


def test_after_zeros_the_range_is_found_as_well() -> None:
    batch = TENSORS["after a ReLU"].astype(np.float32)
    histogram: Histogram = counted([np.zeros(100, np.float32), batch])
    assert histogram.grid == Grid.of(np.zeros(1))
    assert entropy(histogram) == pytest.approx(entropy(counted([batch])), rel=0.1)
    assert mse(histogram) == pytest.approx(mse(counted([batch])), rel=0.1)
