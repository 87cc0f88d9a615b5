"""Races beside exact sweeps of the same numbers: the same lists, ties that are named, and what is not measured."""

import numpy as np
import pytest
from scipy import stats

from service.domain.results import Interval
from service.domain.settings import Budget, SelectionSettings, SweepMethod
from tests.workers.sweep.populations import Population, Swept
from workers.engine import racing
from workers.metrics import intervals

EXACT, RACING = SweepMethod.EXACT, SweepMethod.RACING


def wrong(rng: np.random.Generator, counts: list[int], samples: int) -> np.ndarray:
    """So many samples of each layer, at random."""
    found = np.zeros((len(counts), samples))
    for row, count in zip(found, counts, strict=True):
        row[rng.permutation(samples)[:count]] = 1
    return found


def with_errors(rng: np.random.Generator, answers: np.ndarray) -> Population:
    """Output errors that say nothing of the answers."""
    size = rng.lognormal(0, 1, (len(answers), 1))
    return Population(answers, size * rng.gamma(2.0, 1.0, answers.shape))


def both(population: Population, *, seed: int = 0, **asked: object) -> tuple[Swept, Swept]:
    return population.swept(EXACT, **asked), population.swept(RACING, seed=seed, **asked)


def test_a_layer_that_only_all_samples_show_to_be_significant_is_in_the_list() -> None:
    # 7 of 800 in one direction: McNemar's p is 0.016; 5 would be noise
    rng = np.random.default_rng(0)
    population = with_errors(rng, wrong(rng, [7, 300, 5, 0, 0, 0, 0, 0], 800))
    exact, raced = both(population)
    assert set(exact.decision.fallback[:2]) == {"a", "b"}
    assert set(raced.decision.fallback) == {"a", "b"}
    assert raced.samples["layer:a"] > 700
    assert raced.samples["layer:b"] < 400


def test_a_layer_that_all_samples_show_to_be_noise_is_not_in_the_list() -> None:
    rng = np.random.default_rng(0)
    population = with_errors(rng, wrong(rng, [5, 300, 4, 0, 0, 0, 0, 0], 800))
    for seed in range(4):
        exact, raced = both(population, seed=seed)
        assert exact.decision.fallback == raced.decision.fallback == ("b",)


ASKED = {
    "no budget": {},
    "a budget": {"budget": Budget(max_drop=0.02)},
    "a threshold": {"selection": SelectionSettings(algorithm="threshold", threshold=0.01)},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_race_decides_as_the_exact_sweep_at_the_stated_rate(asked: dict[str, object]) -> None:
    """Of layers around significance, budget and threshold, so that a careless race would be wrong often."""
    rng = np.random.default_rng(1)
    other, races = 0, 12
    for seed in range(races):
        counts = [*rng.integers(0, 14, 5), *rng.integers(20, 80, 2), 0]
        exact, raced = both(with_errors(rng, wrong(rng, counts, 700)), seed=seed, **asked)
        most = None if asked else 2
        other += set(raced.decision.fallback) != set(exact.decision.fallback[:most])
    assert stats.binomtest(other, races, racing.ERROR_RATE, alternative="greater").pvalue > 0.05


def test_layers_of_lists_that_are_too_short_are_not_raced() -> None:
    """Two layers that all samples hardly tell apart, either of which alone is far from enough."""
    rng = np.random.default_rng(0)
    population = with_errors(rng, wrong(rng, [660, 660, 0, 0, 0, 0, 0, 0], 10_000))
    exact, raced = both(population, budget=Budget(max_drop=0.01))
    assert set(raced.decision.fallback) == set(exact.decision.fallback) == {"a", "b"}
    assert raced.samples["layer:a"] < 2000
    assert raced.samples["mixed:a"] < 2000
    assert raced.samples["mixed:b"] < 2000


def ties() -> Population:
    """Four layers of the same output error but for a hair, four of far less: two places."""
    rng = np.random.default_rng(0)
    mse = rng.gamma(2.0, 1.0, (8, 1000))
    mse *= (np.r_[[1.0, 1.001, 1.002, 1.003], np.full(4, 0.1)] / mse.mean(axis=1))[:, None]
    return Population(np.zeros((8, 1000)), mse)


def test_layers_that_the_exact_intervals_do_not_tell_apart_stop_and_are_named() -> None:
    raced = ties().swept(RACING, metric="mse")
    assert set(raced.decision.fallback) < set("abcd")
    named = {(kept, other) for kept, *others in raced.decision.ties for other in others}
    assert named == {
        (kept, other) for kept in raced.decision.fallback for other in set("abcd") - {*raced.decision.fallback}
    }
    assert max(raced.samples[f"layer:{each}"] for each in "abcd") < 1000
    for each in "abcd":
        assert raced.stopped[each].startswith("tied after ")
    assert "up to ties" in raced.decision.explanation
    assert "net.a" in raced.decision.explanation
    assert all(raced.stopped[each].startswith("surely not") for each in "efgh")


def test_what_is_told_apart_is_no_tie() -> None:
    population = ties()
    mse = population.mse * np.array([3.0, 3.0, 1, 1, 1, 1, 1, 1])[:, None]
    raced = Population(population.wrong, mse).swept(RACING, metric="mse")
    assert raced.decision.ties == ()
    assert "up to ties" not in raced.decision.explanation


def interval(values: np.ndarray) -> Interval:
    return intervals.mean(values)


def test_lists_differ_only_by_ties_whose_intervals_overlap_over_all_samples() -> None:
    rng = np.random.default_rng(2)
    other, races = 0, 16
    for seed in range(races):
        shared = rng.lognormal(0, 0.6, 600)
        mse = np.sort(rng.lognormal(0, 0.3, 12))[:, None] * shared * rng.gamma(2.0, 1.0, (12, 600))
        population = Population(np.zeros((12, 600)), mse)
        exact, raced = both(population, seed=seed, metric="mse")
        mine, theirs = set(raced.decision.fallback), set(exact.decision.fallback[:3])
        found = {layer: interval(row) for layer, row in zip(population.layers, mse, strict=True)}
        named = {(kept, out) for kept, *others in raced.decision.ties for out in others}
        overlap = all((found[kept].low or 0) <= (found[out].high or 0) for kept, out in named)
        other += not (overlap and {(kept, out) for kept in mine - theirs for out in theirs - mine} <= named)
    assert stats.binomtest(other, races, racing.ERROR_RATE, alternative="greater").pvalue > 0.05


def test_without_a_budget_the_list_is_shown_on_a_few_samples() -> None:
    raced = ties().swept(RACING, metric="mse")
    assert raced.decision.chosen is not None
    assert 128 <= raced.decision.chosen.score.drop.samples < 256
