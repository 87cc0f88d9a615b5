"""Means over all samples from those that were drawn first, against the mean itself in many draws."""

import numpy as np
import pytest

from workers.metrics.draw import Draw, drawn

N = 400


def population() -> tuple[np.ndarray, np.ndarray]:
    """Values of two rows that go with the chances but for noise, and the chances."""
    rng = np.random.default_rng(0)
    chances = rng.lognormal(0, 1.5, N)
    return chances * rng.lognormal(0, 0.5, (2, N)), 0.9 * chances / chances.mean() + 0.1


def test_equal_chances_give_the_plain_mean_and_its_error_corrected_for_what_is_drawn() -> None:
    values = population()[0][0, :100]
    found = Draw.equal(N).estimate(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.error() == pytest.approx(values.std(ddof=1) / 10 * np.sqrt(1 - 100 / N))


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
def test_all_samples_give_the_mean_itself_without_error(equal: bool) -> None:
    values, chances = population()
    found = (Draw.equal(N) if equal else Draw(chances)).estimate(values)
    assert found.mean == pytest.approx(values.mean(axis=1))
    assert (found.error() == 0).all()


@pytest.mark.parametrize("n", [40, 150, 350])
def test_unequal_chances_give_the_mean_on_average_and_tell_their_error(n: int) -> None:
    values, chances = population()
    means, errors = [], []
    for seed in range(600):
        order = drawn(chances, seed)
        found = Draw(chances[order]).estimate(values[0, order[:n]])
        means.append(found.mean)
        errors.append(found.error())
    spread = np.std(means)
    assert np.mean(means) == pytest.approx(values[0].mean(), abs=4 * spread / np.sqrt(600))
    # a standard deviation of 600 draws is known within 3 %; the estimate's own bias adds some
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.15)


def test_chances_that_go_with_the_values_make_the_error_small() -> None:
    values, chances = population()
    order = drawn(chances, 0)
    by_chance = Draw(chances[order]).estimate(values[0, order[:60]]).error()
    plain = Draw.equal(N).estimate(values[0, np.random.default_rng(0).permutation(N)[:60]]).error()
    assert by_chance < plain / 2


def test_influence_is_linear_so_that_a_difference_has_the_error_of_its_own_values() -> None:
    values, chances = population()
    draw = Draw(chances)
    first, second, difference = (draw.estimate(each[:80]) for each in (values[0], values[1], values[0] - values[1]))
    assert np.allclose(first.influence - second.influence, difference.influence)


def test_a_sample_comes_first_in_proportion_to_its_chance() -> None:
    chances = np.array([1.0, 2.0, 5.0])
    first = np.bincount([drawn(chances, seed)[0] for seed in range(4000)], minlength=3) / 4000
    assert first == pytest.approx(chances / 8, abs=0.03)
