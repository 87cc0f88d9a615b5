from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.results import Interval
from service.selection.noise_fit import NORMAL, NoisyDrop, fit_noise


def measured(noise: float, drop: float | None, error: float | None = 0.01) -> NoisyDrop:
    low, high = (None, None) if drop is None or error is None else (drop - NORMAL * error, drop + NORMAL * error)
    return NoisyDrop(noise=noise, drop=Interval(value=drop, low=low, high=high, method="t", samples=100))


def test_what_rises_is_met_and_straight_between() -> None:
    fit = fit_noise([measured(1, 0.1), measured(3, 0.5), measured(2, 0.2)])
    assert [fit.drop(noise) for noise in (0, 0.5, 1, 2, 2.5, 3)] == pytest.approx([0, 0.05, 0.1, 0.2, 0.35, 0.5])


def test_what_falls_is_pooled_by_its_weights() -> None:
    fit = fit_noise([measured(1, 0.3, 0.01), measured(2, 0.1, 0.02)])
    assert fit.drop(1) == fit.drop(2) == pytest.approx((4 * 0.3 + 0.1) / 5)


def test_a_drop_below_zero_is_noise() -> None:
    fit = fit_noise([measured(1, -0.2), measured(2, 0.1)])
    assert (fit.drop(1), fit.drop(2)) == (0.0, pytest.approx(0.1))


def test_beyond_the_largest_noise_it_goes_on_in_proportion_and_says_so() -> None:
    fit = fit_noise([measured(1, 0.1), measured(2, 0.2)])
    found = fit.predict(4)
    assert found.value == pytest.approx(0.4)
    assert found.extrapolated
    assert not fit.predict(2).extrapolated


def test_a_variant_without_a_drop_counts_for_nothing_and_none_at_all_is_refused() -> None:
    assert fit_noise([measured(1, 0.1), measured(2, None)]).predict(1).variants == 1
    with pytest.raises(ValueError, match="no variant has a drop"):
        fit_noise([measured(1, None)])


def test_a_variant_without_an_interval_is_as_unsure_as_the_worst_other() -> None:
    with_one = fit_noise([measured(1, 0.3, 0.01), measured(2, 0.1, None)])
    assert with_one.drop(1) == pytest.approx(0.2)


def test_the_interval_is_wider_where_variants_are_less_sure_and_where_they_scatter() -> None:
    noise = np.linspace(1, 10, 20)
    chance = np.random.default_rng(0).standard_normal(20)

    def width(error: float, scatter: float) -> float:
        fit = fit_noise(measured(each, 0.05 * each + scatter * z, error) for each, z in zip(noise, chance, strict=True))
        found = fit.predict(5)
        return found.high - found.low

    assert width(0.02, 0.02) > 1.5 * width(0.01, 0.01)
    assert width(0.01, 0.05) > 1.5 * width(0.01, 0.01)


def test_the_interval_holds_another_variant_as_often_as_it_says() -> None:
    """Drops that rise with the noise as a curve does; of 120 predictions 95 % would be 114."""
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(120):
        noise = rng.uniform(0, 10, 25)
        fit = fit_noise(
            [measured(float(x), float(0.005 * x**2 + rng.normal(0, 0.02)), 0.02) for x in noise], seed=trial
        )
        new = float(rng.uniform(1, 9))
        found = fit.predict(new)
        held += found.low <= 0.005 * new**2 + rng.normal(0, 0.02) <= found.high
    assert 0.9 <= held / 120 < 1


VARIANTS = st.lists(
    st.builds(measured, st.floats(0, 10), st.floats(-0.5, 1), st.floats(0.001, 0.1) | st.none()),
    min_size=1,
    max_size=12,
)


@given(VARIANTS)
def test_it_starts_at_zero_never_falls_and_is_the_same_in_any_order(variants: list[NoisyDrop]) -> None:
    fit, again = fit_noise(variants), fit_noise(variants[::-1])
    drops = [fit.drop(noise) for noise in np.linspace(0, 15, 40)]
    assert drops[0] == 0
    assert all(one <= other + 1e-12 for one, other in pairwise(drops))
    assert [again.drop(noise) for noise in np.linspace(0, 15, 40)] == pytest.approx(drops, abs=1e-9)


@given(VARIANTS, st.floats(0, 20))
def test_a_prediction_lies_within_its_interval(variants: list[NoisyDrop], noise: float) -> None:
    found = fit_noise(variants).predict(noise)
    assert found.low <= found.value <= found.high
