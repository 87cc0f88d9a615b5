"""What is foreseen of an exact sweep's significance, against what it then finds on all samples."""

import numpy as np
import pytest
from scipy import stats

from service.selection.ranking import is_significant
from workers.engine.foreseen import counts, half_widths, significance
from workers.metrics import intervals
from workers.metrics.draw import Draw


def test_the_half_width_is_that_of_the_interval_on_all_samples() -> None:
    values = np.random.default_rng(0).gamma(2.0, 1.0, 500)
    interval = intervals.mean(values)
    found = half_widths(values, Draw.equal(500)).mean()
    assert interval.high is not None
    assert interval.value is not None
    assert found == pytest.approx(interval.high - interval.value, rel=2e-3)  # n against n - 1


def test_values_that_are_all_equal_have_no_width() -> None:
    assert (half_widths(np.ones(10), Draw.equal(20)) == 0).all()


@pytest.mark.parametrize(("found", "n", "samples"), [(0, 30, 200), (4, 30, 200), (30, 30, 200), (7, 200, 200)])
def test_counts_are_bounded_as_the_hypergeometric_distribution_says(found: int, n: int, samples: int) -> None:
    level = 0.01
    possible = [
        each
        for each in range(found, found + samples - n + 1)
        if stats.hypergeom.sf(found - 1, samples, each, n) > level
        and stats.hypergeom.cdf(found, samples, each, n) > level
    ]
    assert counts(found, n, samples, level) == (possible[0], possible[-1])


def drops(better: int, worse: int, samples: int) -> np.ndarray:
    return np.r_[np.ones(better), -np.ones(worse), np.zeros(samples - better - worse)]


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (5, 0), (6, 0), (30, 22), (40, 10), (3, 9)])
def test_on_all_samples_it_is_what_the_exact_sweep_finds(better: int, worse: int) -> None:
    exact = is_significant(intervals.counted_difference(better, worse, 400))
    found = significance(drops(better, worse, 400), Draw.equal(400), 0.01, counted=True)
    assert found == (1 if exact else -1)


def test_few_samples_do_not_tell_that_a_layer_will_be_noise() -> None:
    assert significance(drops(0, 0, 200), Draw.equal(400), 1e-3, counted=True) == 0
    assert significance(drops(0, 0, 398), Draw.equal(400), 1e-3, counted=True) == -1
    assert significance(drops(60, 0, 200), Draw.equal(400), 1e-3, counted=True) == 1


@pytest.mark.parametrize("counted", [True, False], ids=["counts", "means"])
def test_it_is_wrong_at_most_at_its_level(counted: bool) -> None:
    """Of layers about as sensitive as the exact sweep can just tell from none."""
    rng = np.random.default_rng(0)
    samples, n, level, trials = 500, 380, 0.05, 400
    wrong = sure = 0
    for _ in range(trials):
        if counted:
            values = drops(int(rng.integers(4, 16)), int(rng.integers(0, 5)), samples)
            exact = is_significant(
                intervals.counted_difference(int((values == 1).sum()), int((values == -1).sum()), samples)
            )
        else:
            values = rng.normal(rng.normal(0.09, 0.03), 1.0, samples)
            exact = is_significant(intervals.mean(values))
        found = significance(rng.permutation(values)[:n], Draw.equal(samples), level, counted=counted)
        sure += found != 0
        wrong += found != 0 and (found > 0) != exact
    assert sure > trials / 20
    assert wrong <= level * trials
