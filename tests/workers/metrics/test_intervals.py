"""Intervals against published figures and independent calculations, and how often they hold the truth."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from service.domain.results import Interval
from workers.metrics import intervals

DRAWS = 2000
# 95 % less four standard errors of a share over DRAWS draws is 0.9305
LEAST_COVERAGE = 0.93


def pairs(b: int, c: int, n: int) -> tuple[Any, Any]:
    """0/1 outcomes of which ``b`` only the first has right, ``c`` only the second."""
    first, second = np.ones(n), np.ones(n)
    second[:b] = 0
    first[b : b + c] = 0
    return first, second


def holds(found: Interval, truth: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low <= truth <= found.high


@pytest.mark.parametrize(
    ("b", "c", "n", "low", "high", "digits"),
    [(6, 16, 161, -0.1240, -0.0054, 4), (1, 7, 21, -0.517, -0.026, 3)],
    ids=["Cavo et al. 2012", "Bentur et al. 2009"],
)
def test_paired_proportions_equal_published_figures(
    b: int, c: int, n: int, low: float, high: float, digits: int
) -> None:
    """As the R packages contingencytables and ratesci print them."""
    found = intervals.proportion_difference(*pairs(b, c, n))
    assert found.low is not None
    assert found.high is not None
    assert (round(found.low, digits), round(found.high, digits)) == (low, high)
    assert found.value == (b - c) / n


def test_mcnemars_p_value_equals_a_published_one() -> None:
    """Cavo et al. 2012, as the R package contingencytables prints it."""
    assert intervals.proportion_difference(*pairs(6, 16, 161)).p_value == pytest.approx(0.052479, abs=5e-7)


def score_distance(b: int, c: int, n: int, delta: float) -> float:
    """How many standard deviations (b − c)/n lies from delta; the nuisance share by numeric maximum likelihood."""
    rest = n - b - c

    def likelihood(share: float) -> float:
        terms = ((b, share + delta), (c, share), (rest, 1 - 2 * share - delta))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    share = optimize.minimize_scalar(likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return float((b / n - c / n - delta) / math.sqrt((2 * share + delta - delta**2) / n))


@pytest.mark.parametrize(("b", "c", "n"), [(40, 20, 160), (3, 1, 50), (12, 0, 1000), (1, 1, 8), (100, 90, 10_000)])
def test_tangos_bounds_are_where_the_score_reaches_the_normal_quantile(b: int, c: int, n: int) -> None:
    found = intervals.proportion_difference(*pairs(b, c, n))
    assert found.low is not None
    assert found.high is not None
    assert score_distance(b, c, n, found.low) == pytest.approx(1.959964, abs=2e-4)
    assert score_distance(b, c, n, found.high) == pytest.approx(-1.959964, abs=2e-4)


@pytest.mark.parametrize("n", [1, 2, 10, 1000, 100_000])
def test_no_discordant_sample_leaves_an_interval_of_some_width(n: int) -> None:
    """With b = c = 0 the score's bounds are ±z²/(n + z²)."""
    found = intervals.proportion_difference(*pairs(0, 0, n))
    width = 1.959964**2 / (n + 1.959964**2)
    assert (found.low, found.high) == (pytest.approx(-width, rel=1e-5), pytest.approx(width, rel=1e-5))
    assert (found.value, found.p_value) == (0.0, 1.0)


@given(n=st.integers(1, 400), data=st.data())
def test_paired_proportions_are_well_behaved(n: int, data: st.DataObject) -> None:
    b = data.draw(st.integers(0, n))
    c = data.draw(st.integers(0, n - b))
    found = intervals.proportion_difference(*pairs(b, c, n))
    swapped = intervals.proportion_difference(*reversed(pairs(b, c, n)))
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert (swapped.low, swapped.high) == (pytest.approx(-found.high, abs=1e-9), pytest.approx(-found.low, abs=1e-9))
    assert swapped.p_value == pytest.approx(found.p_value)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (5, 0), (6, 0), (7, 2), (10, 10), (30, 12), (300, 250)])
def test_mcnemars_p_value_is_the_two_tails_of_a_fair_coin(b: int, c: int) -> None:
    found = intervals.proportion_difference(*pairs(b, c, 1000)).p_value
    tail = sum(math.comb(b + c, each) for each in range(min(b, c) + 1)) / 2 ** (b + c)
    assert found == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert found == pytest.approx(stats.binomtest(c, b + c, 0.5).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("p12", "p21", "n"),
    [(0.02, 0.01, 500), (0.005, 0.005, 1000), (0.2, 0.05, 50), (0.03, 0.0, 200)],
    ids=["few flips", "no true drop", "small set", "one direction only"],
)
def test_tangos_interval_holds_the_true_difference(p12: float, p21: float, n: int) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, [p12, p21, 1 - p12 - p21], size=DRAWS)
    tables, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
    hit = [holds(intervals.proportion_difference(*pairs(int(b), int(c), n)), p12 - p21) for b, c in tables]
    assert (np.array(hit) * counts).sum() / DRAWS >= LEAST_COVERAGE


@pytest.mark.parametrize(("p12", "n"), [(0.005, 1000), (0.05, 100)])
def test_mcnemars_test_calls_no_more_than_a_twentieth_of_harmless_layers_different(p12: float, n: int) -> None:
    drawn = np.random.default_rng(1).multinomial(n, [p12, p12, 1 - 2 * p12], size=DRAWS)
    tables, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
    p_values = [intervals.proportion_difference(*pairs(int(b), int(c), n)).p_value or 0.0 for b, c in tables]
    assert (np.array(p_values) < 0.05) @ counts / DRAWS <= 0.05


@pytest.mark.parametrize(("ones", "n"), [(0, 10), (1, 10), (81, 263), (15, 148), (1000, 1000)])
def test_a_shares_interval_is_scipys_wilson(ones: int, n: int) -> None:
    found = intervals.proportion(np.repeat([1.0, 0.0], [ones, n - ones]))
    theirs = stats.binomtest(ones, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == (pytest.approx(theirs.low, abs=1e-12), pytest.approx(theirs.high, abs=1e-12))
    assert found.method == "Wilson"


@pytest.mark.parametrize(("p", "n"), [(0.9, 1000), (0.7, 100), (0.5, 30)])
def test_wilsons_interval_holds_the_true_share(p: float, n: int) -> None:
    """Summed over all outcomes instead of drawn."""
    outcomes = np.arange(n + 1)
    hit = [holds(intervals.proportion(np.repeat([1.0, 0.0], [ones, n - ones])), p) for ones in outcomes]
    assert stats.binom.pmf(outcomes, n, p) @ np.array(hit) >= LEAST_COVERAGE


def test_a_means_interval_and_p_value_are_scipys() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 40)
    found, theirs = intervals.mean_drop(values), stats.ttest_1samp(values, 0.0)
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.p_value == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(("n", "skew"), [(2, 0.0), (10, 0.0), (1000, 1.0)], ids=["two", "ten", "many, log-normal"])
def test_the_t_interval_holds_the_true_mean(n: int, skew: float) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.lognormal(0.0, skew, (DRAWS, n)) if skew else rng.normal(1.0, 2.0, (DRAWS, n))
    truth = math.exp(skew**2 / 2) if skew else 1.0
    assert np.mean([holds(intervals.mean(each), truth) for each in drawn]) >= LEAST_COVERAGE


@pytest.mark.parametrize(("n", "share"), [(50, 0.70), (1000, 0.87)])
def test_the_t_interval_is_too_narrow_under_heavy_tails_as_the_docs_say(n: int, share: float) -> None:
    """docs/statistics.md quotes these shares."""
    drawn = np.random.default_rng(0).lognormal(0.0, 2.0, (DRAWS, n))
    assert np.mean([holds(intervals.mean(each), math.exp(2.0)) for each in drawn]) == pytest.approx(share, abs=0.01)


def test_the_sqnr_is_ten_log10_of_the_ratio_of_means() -> None:
    found = intervals.sqnr_db(np.array([100.0, 300.0]), np.array([1.0, 3.0]))
    assert found.value == pytest.approx(20.0)
    assert found.low == pytest.approx(20.0), "each sample has the same ratio: nothing is uncertain"


@pytest.mark.parametrize("n", [50, 1000])
def test_the_sqnrs_interval_holds_the_true_ratio(n: int) -> None:
    rng = np.random.default_rng(0)
    hit = []
    for _ in range(DRAWS):
        strength = rng.lognormal(0.0, 0.5, n)
        signal, noise = strength, 0.001 * np.sqrt(strength) * rng.lognormal(0.0, 0.5, n)
        hit.append(holds(intervals.sqnr_db(signal, noise), truth := _true_sqnr()))
    assert 25 < truth < 35
    assert np.mean(hit) >= LEAST_COVERAGE


def _true_sqnr() -> float:
    """E[exp(sZ)] = exp(s²/2): the signal's s is 0.5, the noise's √(0.25² + 0.5²)."""
    return 10 * math.log10(math.exp(0.5**2 / 2) / (0.001 * math.exp((0.25**2 + 0.5**2) / 2)))


def test_the_sqnr_drop_between_two_variants_is_the_difference_of_theirs() -> None:
    rng = np.random.default_rng(0)
    signal, worse, better = rng.lognormal(0, 1, 200), rng.lognormal(-3, 1, 200), rng.lognormal(-5, 1, 200)
    low, high = (intervals.sqnr_db(signal, each).value for each in (worse, better))
    assert low is not None
    assert high is not None
    assert intervals.sqnr_drop_db(worse, better).value == pytest.approx(high - low)


def test_the_jackknife_of_a_mean_over_equal_shards_is_the_t_interval_of_their_means() -> None:
    shards = np.random.default_rng(0).normal(size=(8, 25))
    without = np.array([np.delete(shards, each, axis=0).mean() for each in range(8)])
    found, t = intervals.jackknife(shards.mean(), without, 200), intervals.mean(shards.mean(axis=1))
    assert (found.low, found.high) == (pytest.approx(t.low), pytest.approx(t.high))
    tested = intervals.jackknife_drop(shards.mean(), without, 200)
    assert tested.p_value == pytest.approx(stats.ttest_1samp(shards.mean(axis=1), 0.0).pvalue)


@pytest.mark.parametrize("shards", [5, 20])
def test_the_jackknifes_interval_holds_the_true_value_of_a_smooth_metric(shards: int) -> None:
    """The metric: a correlation of 0.6, over shards of 50 samples."""
    rng = np.random.default_rng(0)
    hit = []
    for _ in range(DRAWS // 2):
        x = rng.standard_normal((shards, 50))
        y = 0.6 * x + 0.8 * rng.standard_normal((shards, 50))
        # (shards, 5) sums, from which any subset's correlation follows
        sums = np.stack([each.sum(axis=1) for each in (x, y, x * x, y * y, x * y)], axis=1)
        without = np.array([_correlation(sums.sum(axis=0) - each, (shards - 1) * 50) for each in sums])
        hit.append(holds(intervals.jackknife(_correlation(sums.sum(axis=0), shards * 50), without, shards * 50), 0.6))
    assert np.mean(hit) >= LEAST_COVERAGE


def _correlation(sums: Any, n: int) -> float:
    x, y, xx, yy, xy = sums
    return float((xy - x * y / n) / math.sqrt((xx - x * x / n) * (yy - y * y / n)))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (intervals.mean(np.zeros(0)), "no samples"),
        (intervals.proportion(np.zeros(0)), "no samples"),
        (intervals.proportion_difference(np.zeros(0), np.zeros(0)), "no samples"),
        (intervals.sqnr_db(np.zeros(0), np.zeros(0)), "no samples"),
        (intervals.sqnr_db(np.ones(3), np.zeros(3)), "no noise at all"),
        (intervals.sqnr_db(np.zeros(3), np.ones(3)), "zero throughout"),
        (intervals.sqnr_drop_db(np.ones(3), np.zeros(3)), "no noise at all"),
        (intervals.mean(np.array([1.0, np.inf])), "not finite"),
        (intervals.mean(np.array([1.0, np.nan])), "not finite"),
        (intervals.sqnr_db(np.array([1.0, np.inf]), np.ones(2)), "not finite"),
        (intervals.jackknife(math.nan, np.ones(3), 9), "not finite"),
        (intervals.jackknife_drop(1.0, np.array([1.0, np.nan]), 9), "not finite"),
    ],
    ids=lambda each: None if isinstance(each, str) else each.method,
)
def test_what_is_not_defined_has_no_number_and_says_why(found: Interval, reason: str) -> None:
    assert (found.value, found.low, found.high, found.p_value) == (None, None, None, None)
    assert reason in found.method


@pytest.mark.parametrize(
    "found",
    [
        intervals.mean(np.array([2.0])),
        intervals.mean_drop(np.array([2.0])),
        intervals.sqnr_db(np.array([100.0]), np.array([1.0])),
        intervals.jackknife_drop(2.0, np.zeros(0), 5),
    ],
    ids=["mean", "drop", "sqnr", "one shard"],
)
def test_one_value_has_no_interval(found: Interval) -> None:
    assert found.value is not None
    assert (found.low, found.high, found.p_value) == (None, None, None)
    assert "one" in found.method


@pytest.mark.parametrize(("value", "p_value"), [(0.0, 1.0), (0.25, 0.0)])
def test_equal_differences_leave_nothing_uncertain(value: float, p_value: float) -> None:
    found = intervals.mean_drop(np.full(4, value))
    assert (found.low, found.value, found.high, found.p_value) == (value, value, value, p_value)


@pytest.mark.parametrize(
    "found",
    [
        intervals.mean(np.arange(5.0)),
        intervals.proportion(np.array([0.0, 1.0])),
        intervals.sqnr_db(np.arange(1.0, 5), np.arange(2.0, 6)),
        intervals.jackknife(1.0, np.arange(3.0), 9),
    ],
    ids=["mean", "share", "sqnr", "jackknife"],
)
def test_only_drops_have_a_p_value(found: Interval) -> None:
    assert found.p_value is None


class TestMedian:
    def test_the_ends_are_the_order_statistics_of_tables(self) -> None:
        # Conover, Practical Nonparametric Statistics (1999), table A3: n = 10 gives ranks 2 and 9 (97.9 %)
        found = intervals.median(np.array([9.0, 1, 8, 2, 7, 3, 6, 4, 5, 10]))
        assert (found.value, found.low, found.high, found.samples) == (5.5, 2.0, 9.0, 10)

    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_few_values_have_no_interval(self, n: int) -> None:
        found = intervals.median(np.arange(n, dtype=np.float64))
        assert (found.value, found.low, found.high) == ((n - 1) / 2, None, None)
        assert found.method == f"{n} values have no interval"

    def test_no_value_has_no_median(self) -> None:
        assert intervals.median(np.array([])).value is None

    @pytest.mark.parametrize("n", [6, 13, 50])
    def test_it_holds_the_truth_whatever_the_distribution_is(self, n: int) -> None:
        draws = np.random.default_rng(n).exponential(size=(DRAWS, n)) ** 3
        covered = [holds(intervals.median(each), math.log(2) ** 3) for each in draws]
        assert np.mean(covered) >= LEAST_COVERAGE
