"""Counts against a loop over values, and that histograms add up exactly, whoever counted what and in which order."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.results import Extent
from tests.workers.calibration.distributions import TENSORS, counted, growing
from workers.calibration.histogram import BINS, MOST_BINS, Grid, Histogram

MAGNITUDES = st.floats(0, 2.0**120, width=32) | st.floats(0, 2, width=32) | st.sampled_from([0.0, 1.0, 0.5, 1024.0])
SPECIAL = st.sampled_from([math.nan, math.inf, -math.inf])
BATCHES = st.lists(st.lists(MAGNITUDES | MAGNITUDES.map(lambda x: -x) | SPECIAL, max_size=8), min_size=1, max_size=6)


FEW_BINS = 2**12
"""So that bins are merged often, and few are compared."""


def arrays(batches: list[list[float]]) -> list[Any]:
    return [np.array(each, dtype=np.float32) for each in batches]


def parts(histogram: Histogram) -> tuple[Any, ...]:
    return histogram.grid, histogram.level, histogram.counts.tolist(), histogram.finite, histogram.extent


def merged(histograms: list[Histogram]) -> Histogram:
    found = histograms[0]
    for each in histograms[1:]:
        found = found.merge(each)
    return found


@settings(deadline=None, max_examples=200)
@given(batches=BATCHES, data=st.data())
def test_shards_in_any_cut_and_order_add_up_to_what_one_pass_counts(batches: list[list[float]], data: Any) -> None:
    tensors = arrays(batches)
    grid = replace(Grid.of(tensors[0]), most=FEW_BINS)
    whole = counted(tensors, grid)
    order = data.draw(st.permutations(tensors))
    cut = data.draw(st.integers(0, len(order)))
    shards = [counted(order[:cut], grid), counted(order[cut:], grid)]
    assert parts(merged(shards)) == parts(whole)
    assert parts(merged(shards[::-1])) == parts(whole)
    each_alone = data.draw(st.permutations([counted([tensor], grid) for tensor in tensors]))
    assert parts(merged([counted([], grid), *each_alone])) == parts(whole)


@settings(deadline=None, max_examples=100)
@given(values=st.lists(MAGNITUDES, min_size=1, max_size=12), first=st.floats(2.0**-20, 2.0**20, width=32))
def test_each_value_is_in_the_bin_that_holds_it_to_a_float32s_rounding(values: list[float], first: float) -> None:
    grid = Grid(first, FEW_BINS)
    for value in values:
        histogram = counted([np.array([value], np.float32)], grid)
        (index,) = np.flatnonzero(histogram.counts)
        position = Fraction(value) / Fraction(histogram.width)
        assert index - position * Fraction(1, 2**23) <= position <= (index + 1) * (1 + Fraction(1, 2**23))


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_the_first_batch_fills_2048_bins_up_to_its_largest_value(tensor: Any) -> None:
    batch = tensor.astype(np.float32)
    histogram = counted([batch])
    theirs, _ = np.histogram(np.abs(batch).astype(np.float64), bins=BINS, range=(0, float(np.abs(batch).max())))
    moved = int(np.abs(np.cumsum(theirs - histogram.counts)).sum())
    assert (len(histogram.counts), histogram.total, histogram.level) == (BINS, batch.size, 0)
    assert moved <= 2, "float32 puts hardly a value on the other side of an edge"


def test_a_larger_batch_takes_more_bins_of_the_same_width() -> None:
    histogram = counted(growing(1.5))
    assert histogram.width == counted(growing(1.5)[:1]).width
    assert histogram.counts[-1] > 0
    assert len(histogram.counts) == math.floor(max(np.abs(each).max() for each in growing(1.5)) / histogram.width) + 1


@pytest.mark.parametrize("factor", [600.0, 1e9, 1e38])
def test_bins_are_merged_in_pairs_beyond_two_to_the_twenty(factor: float) -> None:
    histogram = counted([np.array([1.0, 0.25], np.float32), np.array([factor], np.float32)])
    assert MOST_BINS // 2 <= len(histogram.counts) <= MOST_BINS
    assert histogram.total == 3
    assert histogram.width == 2.0**histogram.level / BINS


@pytest.mark.parametrize("largest", [1e-38, 0.3, 7.0, 1e38])
def test_after_a_first_batch_of_zeros_about_2048_bins_hold_what_follows(largest: float) -> None:
    histogram = counted([np.zeros(5, np.float32), np.array([largest, largest / 2], np.float32)])
    assert BINS <= len(histogram.counts) <= 2 * BINS
    assert histogram.counts[0] == 5
    assert histogram.counts[-1] == 1
    assert histogram.width * len(histogram.counts) == pytest.approx(largest, rel=1 / BINS)


@pytest.mark.parametrize("later", [1.0, 3.0])
def test_the_first_batchs_largest_value_is_in_the_last_of_its_bins_whenever_it_comes(later: float) -> None:
    histogram = counted([np.array([1.0], np.float32), np.array([1.0, later], np.float32)])
    assert histogram.counts[BINS - 1] >= 2
    assert histogram.counts[BINS:].sum() == (later > 1)


@pytest.mark.parametrize("batch", [[], [0.0], [math.nan], [math.inf, 0.0]], ids=str)
def test_a_first_batch_without_a_value_fixes_no_width(batch: list[float]) -> None:
    assert Grid.of(np.array(batch, np.float32)) == Grid.of(np.zeros(3, np.float32))


def test_a_first_batch_that_is_partly_infinite_fixes_the_grid_by_the_rest() -> None:
    assert Grid.of(np.array([1.0, -4.0, math.inf], np.float32)) == Grid(4.0, MOST_BINS)


def test_the_order_of_batches_does_not_matter() -> None:
    batches = growing(2.5, size=101)
    grid = Grid.of(batches[0])
    seen = [parts(counted(order, grid)) for order in itertools.permutations(batches)]
    assert all(each == seen[0] for each in seen)


def test_histograms_on_different_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="different grids"):
        counted([np.ones(3)]).merge(counted([np.full(3, 2.0)]))


def test_merging_leaves_both_as_they_were() -> None:
    one, other = (counted(growing(factor), Grid(1.0, MOST_BINS)) for factor in (1.0, 30.0))
    before = parts(one), parts(other)
    one.merge(other).update(np.ones(3))
    assert (parts(one), parts(other)) == before


def test_the_extent_is_the_smallest_and_the_largest_value_of_all_batches() -> None:
    batches = [np.array(each, dtype=np.float32) for each in ([1.0, 2.0], [], [-7.0, 0.5], [0.0])]
    assert counted(batches).extent == Extent(low=-7.0, high=2.0)
    assert counted([np.zeros(0, np.float32)]).extent is None


def test_what_is_not_finite_is_noted_and_not_counted() -> None:
    histogram = counted([np.array([1.0, math.nan, -math.inf, 2.0], np.float32)])
    assert (histogram.finite, histogram.total, histogram.extent) == (False, 2, Extent(low=1.0, high=2.0))


def test_a_value_beyond_float32_is_infinite() -> None:
    assert not counted([np.array([1.0, 1e300])]).finite


def test_the_tensor_that_was_seen_is_left_as_it_was() -> None:
    batch = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    before = batch.copy()
    counted([batch])
    np.testing.assert_array_equal(batch, before)


@pytest.mark.parametrize("factor", [0.5, 1.3, 3.0, 500.0])
def test_the_coarse_bins_double_the_range_until_it_holds_every_value(factor: float) -> None:
    batches = [*growing(1.0, steps=1), *(growing(1.0, steps=1)[0] * np.float32(factor),)]
    counts, width = counted(batches).coarse()
    first, largest = (float(max(np.abs(each).max() for each in some)) for some in (batches[:1], batches))
    top = first * 2 ** max(0, math.ceil(math.log2(largest / first)))
    assert (len(counts), counts.sum()) == (BINS, sum(each.size for each in batches))
    assert width * BINS == pytest.approx(top, rel=1e-12)
