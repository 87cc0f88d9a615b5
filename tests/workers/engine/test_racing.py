"""What a race may claim, and how often it is wrong: against scipy's tests, and in many simulated races."""

import numpy as np
import pytest
from scipy import stats

from service.domain.layers import FP32
from service.domain.settings import MetricSettings
from workers.engine import racing
from workers.metrics.scores import Scoreboard
from workers.metrics.shard_result import ShardResult
from workers.metrics.task_metric import resolve_metric

SURE = 1e-4


def above(values: dict[str, np.ndarray], *looks: int, level: float = 0.05) -> np.ndarray:
    return racing.Race(values, looks, level).above()


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ((16, 16, 16), (3,)),
        ((64, 32, 48, 72, 108), (1, 2, 3, 4, 5)),
        ((128,) * 8, (1, 2, 3, 5, 8)),
        ((10_000,), (1,)),
    ],
    ids=["fewer than the first look", "cut for a race", "equal shards", "one shard"],
)
def test_looks_come_at_growing_numbers_of_shards_and_end_with_all(shards: tuple[int, ...], expected: object) -> None:
    assert racing.looks(shards) == expected


def test_a_race_is_cut_so_that_a_shard_ends_at_each_look() -> None:
    sizes = racing.cut(1017, 128)
    assert sum(sizes) == 1017
    assert max(sizes) <= 128
    ends = np.cumsum(sizes)
    assert [int(ends[each - 1]) for each in racing.looks(sizes)] == [64, 96, 144, 216, 324, 486, 729, 1017]
    assert racing.cut(10, 128) == (10,)
    assert racing.cut(100, 20) == (16, 16, 16, 16, 16, 16, 4)


def test_a_pair_counts_once_at_each_look() -> None:
    # 3 pairs, 3 layers and 3 prefixes against a value, and the reference's two bounds
    assert racing.comparisons(3, 4) == 4 * (3 + 6 + 2)


def test_right_or_wrong_is_compared_by_the_one_sided_sign_test() -> None:
    first, second = np.zeros(100), np.zeros(100)
    first[:9], second[9] = 1, 1
    p_value = stats.binomtest(9, 10, 0.5, alternative="greater").pvalue
    for level, expected in ((p_value * 1.001, True), (p_value * 0.999, False)):
        found = above({"a": first, "b": second}, 100, 1000, level=level)
        assert found.tolist() == [[False, expected], [False, False]]


def test_the_sign_test_is_not_corrected_for_the_size_of_the_population() -> None:
    first, second = np.zeros(100), np.zeros(100)
    first[:5] = 1
    assert not above({"a": first, "b": second}, 100, 101, level=0.5**5 * 0.99).any()


def test_other_measures_are_compared_by_the_paired_t_test_corrected_for_what_is_measured() -> None:
    rng = np.random.default_rng(0)
    second = rng.exponential(size=80)
    first = second + rng.normal(0.2, 1.0, 80)
    plain = stats.ttest_rel(first, second)
    for samples in (81, 100, 10**9):
        t = plain.statistic / np.sqrt(1 - 80 / samples)
        p_value = stats.t.sf(t, 79)
        for level, expected in ((p_value * 1.001, True), (p_value * 0.999, False)):
            found = above({"a": first, "b": second}, 80, samples, level=level)
            assert found.tolist() == [[False, expected], [False, False]], samples


def test_a_layer_is_above_another_only_if_it_is_surely_sensitive_itself() -> None:
    values = np.random.default_rng(0).normal(size=80)
    assert not above({"a": values - values.mean() - 3, "b": values - 30}, 80, 1000).any()


def test_nothing_is_claimed_of_values_that_are_all_equal() -> None:
    assert not above({"a": np.ones(70), "b": np.ones(70), "c": np.zeros(70)}, 70, 1000)[:2, :2].any()


def test_layers_are_compared_on_the_samples_that_both_have() -> None:
    rng = np.random.default_rng(0)
    values = {"a": rng.normal(5, 1, 200), "b": np.r_[rng.normal(1, 1, 64)], "c": rng.normal(4.9, 1, 200)}
    found = above(values, 64, 200, 1000, level=SURE)
    assert found[0, 1]
    assert not found[0, 2]
    assert not found[1].any()


def test_what_was_sure_at_an_earlier_look_stays_so() -> None:
    first, second = np.zeros(400), np.zeros(400)
    first[:40], second[64:200] = 1, 1
    assert above({"a": first, "b": second}, 64, 400, 1000, level=SURE)[0, 1]


MATRIX = {
    "nothing sure": ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], 1, [0, 0, 0]),
    "a chain": ([[0, 1, 1], [0, 0, 1], [0, 0, 0]], 1, [1, -1, -1]),
    "one is surely first": ([[0, 1, 1], [0, 0, 0], [0, 0, 0]], 1, [1, -1, -1]),
    "the first two": ([[0, 0, 1], [0, 0, 1], [0, 0, 0]], 2, [1, 1, -1]),
    "one is surely last": ([[0, 0, 1], [0, 0, 1], [0, 0, 0]], 1, [0, 0, -1]),
    "who is decided leaves": ([[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], 2, [1, 0, 0, -1]),
    "none of them": ([[0, 0], [0, 0]], 0, [-1, -1]),
    "all of them": ([[0, 0], [0, 0]], 2, [1, 1]),
}


@pytest.mark.parametrize(("matrix", "most", "expected"), MATRIX.values(), ids=MATRIX)
def test_sides(matrix: list[list[int]], most: int, expected: list[int]) -> None:
    assert racing.sides(np.array(matrix, dtype=bool), most).tolist() == expected


def test_the_order_is_as_measured_but_never_against_what_is_sure() -> None:
    sure = np.zeros((4, 4), dtype=bool)
    assert racing.in_order((2, 0, 1, 3), sure) == (2, 0, 1, 3)
    sure[1, 2] = True
    assert racing.in_order((2, 0, 1, 3), sure) == (0, 1, 2, 3)
    sure[2, 1] = True  # two claims of which one is wrong
    assert sorted(racing.in_order((2, 1, 0, 3), sure)) == [0, 1, 2, 3]


def decided(population: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Sides at the last look before all samples, whoever stops: a claim that is wrong shows there."""
    layers, samples = population.shape
    sizes = racing.cut(samples, samples)
    ends = np.cumsum(sizes)
    looks = tuple(int(ends[each - 1]) for each in racing.looks(sizes))
    order = rng.permutation(samples)
    level = racing.ERROR_RATE / racing.comparisons(layers, len(looks))
    values = {str(row): each[order] for row, each in enumerate(population)}
    return racing.sides(above(values, *looks, level=level), most)


@pytest.mark.parametrize("kind", ["right or wrong", "skewed"])
def test_a_race_decides_otherwise_than_all_samples_at_most_at_the_stated_rate(kind: str) -> None:
    rng = np.random.default_rng(0)
    layers, samples, most, races = 8, 600, 2, 120
    wrong, sure = 0, 0
    for _ in range(races):
        if kind == "skewed":
            population = rng.lognormal(0, 0.5, samples) * rng.lognormal(np.linspace(0.3, 0, layers)[:, None], 0.7)
            population = population * rng.lognormal(0, 0.5, (layers, samples))
        else:
            population = (rng.random((layers, samples)) < np.linspace(0.16, 0.02, layers)[:, None]).astype(float)
        mean = population.mean(axis=1)
        order = np.sort(mean)[::-1]
        if order[most - 1] == order[most]:
            continue
        sides = decided(population, most, rng)
        wrong += bool(((sides == 1) & (mean < order[most - 1])).any() or ((sides == -1) & (mean > order[most])).any())
        sure += int((sides != 0).sum())
    assert sure > races  # something was decided before the end
    assert wrong <= racing.ERROR_RATE * races


def test_the_intervals_of_a_race_hold_at_every_look_at_the_stated_rate() -> None:
    """Of a mean by t, and of a paired difference by Tango's score; one look's intervals do not."""
    rng = np.random.default_rng(0)
    looks = (64, 144, 324, 729)
    metric = {
        name: resolve_metric(MetricSettings(name=name), has_labels=True, output_names=("y",))
        for name in ("mse", "top1")
    }
    races = 120
    missed = {(name, count): 0 for name in metric for count in (1, len(looks))}
    for _ in range(races):
        right = (rng.random((2, looks[-1])) < [[0.9], [0.8]]).astype(float)
        measures = {
            "mse": np.stack([np.zeros(looks[-1]), rng.gamma(2.0, 0.5, looks[-1])]),
            "correct": right,
            "signal": np.ones((2, looks[-1])),
        }
        for name, count in missed:
            found = [
                Scoreboard(
                    [ShardResult((FP32, "a"), {each: rows[:, :n] for each, rows in measures.items()})],
                    metric[name],
                    looks=count,
                )
                .score("a")
                .drop
                for n in looks
            ]
            truth = 1.0 if name == "mse" else 0.1
            missed[name, count] += not all((each.low or 0) <= truth <= (each.high or 0) for each in found)
    for name in metric:
        assert missed[name, len(looks)] <= 0.05 * races, name
        assert missed[name, 1] > 0.05 * races, name
