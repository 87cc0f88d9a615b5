"""How the exported file is compared: on which parts of the samples, and what counts as the same metric."""

import numpy as np
import pytest

from service.domain.results import Interval
from workers.sweep.mixed_check import is_within, parts_of


def interval(low: float | None, high: float | None) -> Interval:
    return Interval(value=None if low is None else 0.5, low=low, high=high, method="t", samples=3)


@pytest.mark.parametrize(
    ("value", "low", "high", "answer"),
    [
        (0.5, 0.4, 0.6, True),
        (0.6, 0.4, 0.6, True),
        (0.61, 0.4, 0.6, False),
        (0.39, 0.4, 0.6, False),
        (0.5 + 1e-8, 0.5, 0.5, True),
        (0.5001, 0.5, 0.5, False),
        (None, 0.4, 0.6, None),
        (0.5, None, None, None),
    ],
    ids=["inside", "on the end", "above", "below", "rounding of a point", "off a point", "no metric", "no interval"],
)
def test_a_metric_is_within_an_interval_or_not_or_that_is_not_known(
    value: float | None, low: float | None, high: float | None, answer: bool | None
) -> None:
    assert is_within(value, interval(low, high)) is answer


@pytest.mark.parametrize(
    ("samples", "batch", "whole", "sizes"),
    [
        (1024, 64, False, [128] * 8),
        (1024, 100, False, [200] * 5 + [24]),
        (48, 64, False, [6] * 8),
        (48, 64, True, [48]),
        (3, 64, False, [1, 1, 1]),
        (1024, 64, True, [128] * 8),
    ],
)
def test_parts_are_of_whole_batches_where_there_are_enough(
    samples: int, batch: int, whole: bool, sizes: list[int]
) -> None:
    found = parts_of(np.arange(samples), batch, whole_batches=whole)
    assert [len(each) for each in found] == sizes
    assert np.array_equal(np.concatenate(found), np.arange(samples))
