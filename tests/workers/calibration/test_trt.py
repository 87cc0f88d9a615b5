"""TensorRT's four against the published algorithms, written out range by range."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.workers.calibration import literal
from tests.workers.calibration.distributions import TENSORS, counted, growing
from workers.calibration.histogram import BINS
from workers.calibration.maximum import maximum
from workers.calibration.trt_entropy import trt_entropy
from workers.calibration.trt_entropy2 import trt_entropy2
from workers.calibration.trt_legacy import trt_legacy

CASES = {
    **{name: [tensor.astype(np.float32)] for name, tensor in TENSORS.items()},
    "larger batches later": growing(1.4),
    "zeros first": [np.zeros(9, np.float32), *growing(1.4)],
}


def threshold(batches: list[Any], ranges: Sequence[int], *, q_of_p: bool) -> float:
    """With a range that starts at the first batch's maximum and doubles until all values fit."""
    first, largest = (float(max(np.abs(each).max() for each in some)) for some in (batches[:1], batches))
    top = first * 2 ** max(0, math.ceil(math.log2(largest / first)))
    counts, _ = np.histogram(np.abs(np.concatenate([np.ravel(each) for each in batches])), bins=BINS, range=(0, top))
    found = [literal.divergence(counts, size, q_of_p=q_of_p) for size in ranges]
    best = max(size for size, each in zip(ranges, found, strict=True) if each <= min(found) + 1e-12)
    return (best + 0.5) * top / BINS


@pytest.mark.parametrize("name", ["after a ReLU", "log-normal", "larger batches later"])
def test_entropy2_is_the_talks_algorithm_with_levels_of_p(name: str) -> None:
    expected = threshold(CASES[name], range(128, 2049), q_of_p=True)
    assert trt_entropy2(counted(CASES[name])) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["after a ReLU", "log-normal", "larger batches later"])
def test_entropy_is_the_talks_pseudocode(name: str) -> None:
    expected = threshold(CASES[name], range(128, 2048), q_of_p=False)
    assert trt_entropy(counted(CASES[name])) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batches", CASES.values(), ids=CASES)
def test_every_range_is_positive_and_at_most_half_a_bin_beyond_the_histogram(batches: list[Any]) -> None:
    histogram = counted(batches)
    _, width = histogram.coarse()
    for method in (trt_entropy, trt_entropy2):
        assert 128 * width < method(histogram) <= (BINS + 0.5) * width


def test_a_value_far_out_is_clipped() -> None:
    histogram = counted([np.append(TENSORS["normal"].astype(np.float32), np.float32(50))])
    for method in (trt_entropy, trt_entropy2):
        assert method(histogram) < 0.1 * maximum(histogram)


@pytest.mark.parametrize("quantile", [0.9, 0.999, 0.9999])
@pytest.mark.parametrize("batches", CASES.values(), ids=CASES)
def test_legacy_with_cutoff_one_is_the_quantile(batches: list[Any], quantile: float) -> None:
    histogram = counted(batches)
    values = np.sort(np.abs(np.concatenate([np.ravel(each) for each in batches])))
    exact = float(values[math.ceil(round(quantile * len(values), 6)) - 1])
    found = trt_legacy(histogram, quantile=quantile, cutoff=1.0)
    assert found == pytest.approx(exact, abs=1.001 * histogram.width, rel=0)


@pytest.mark.parametrize("cutoff", [0.01, 0.5, 1.0])
def test_legacy_with_quantile_one_is_the_cutoffs_share_of_the_maximum(cutoff: float) -> None:
    histogram = counted(CASES["log-normal"])
    assert trt_legacy(histogram, quantile=1.0, cutoff=cutoff) == cutoff * maximum(histogram)


def test_legacy_takes_the_smaller_of_both() -> None:
    histogram = counted([np.linspace(0, 1, 10_001, dtype=np.float32)])
    assert trt_legacy(histogram, quantile=0.6, cutoff=0.8) == pytest.approx(0.6, abs=1 / BINS)
    assert trt_legacy(histogram, quantile=0.9, cutoff=0.8) == pytest.approx(0.8)
