"""What a race may claim, and how often it is wrong: against scipy's tests, and in many simulated races."""

import numpy as np
import pytest
from scipy import stats

from service.domain.layers import FP32
from service.domain.settings import MetricSettings
from workers.engine import racing
from workers.metrics.draw import Draw, drawn
from workers.metrics.scores import Scoreboard
from workers.metrics.shard_result import ShardResult
from workers.metrics.task_metric import resolve_metric

SURE = 1e-4


def race(values: dict[str, np.ndarray], *looks: int, level: float = 0.05) -> racing.Race:
    return racing.Race(values, looks, level, Draw.equal(looks[-1]))


def above(values: dict[str, np.ndarray], *looks: int, level: float = 0.05) -> np.ndarray:
    return race(values, *looks, level=level).above()


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ((16, 16, 16), (3,)),
        ((64, 16, 20, 25, 31), (1, 2, 3, 4, 5)),
        ((128,) * 8, (1, 2, 3, 4, 5, 7, 8)),
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
    expected = [64, 80, 100, 125, 156, 195, 244, 305, 381, 476, 595, 744, 930, 1017]
    assert [int(ends[each - 1]) for each in racing.looks(sizes)] == expected
    assert racing.cut(10, 128) == (10,)
    assert racing.cut(100, 20) == (16, 16, 16, 16, 16, 20)


def test_all_tests_of_all_looks_but_the_last_share_one_error_rate() -> None:
    assert racing.level(5, 100) == racing.ERROR_RATE / 400
    assert racing.level(1, 100) == racing.ERROR_RATE / 100


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
    for samples in (81, 100, 10**6):
        t = plain.statistic / np.sqrt(1 - 80 / samples)
        p_value = stats.t.sf(t, 79)
        for level, expected in ((p_value * 1.001, True), (p_value * 0.999, False)):
            found = above({"a": first, "b": second}, 80, samples, level=level)
            assert found.tolist() == [[False, expected], [False, False]], samples


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


def test_layers_are_ties_only_where_their_intervals_over_all_samples_surely_overlap() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.0, 1.0, (3, 2000))
    values += np.array([[5.0], [5.0], [9.0]]) - values.mean(axis=1, keepdims=True)
    found = race(dict(zip("abc", values[:, :1800], strict=True)), 1800, 2000, level=SURE).not_told_below()
    assert found[0, 1]
    assert found[1, 0]
    assert found[2].all()
    assert not found[:2, 2].any()


def test_all_samples_tell_two_layers_apart_that_no_test_would() -> None:
    first = np.zeros(70)
    first[69] = 1
    assert above({"a": first, "b": np.zeros(70)}, 64, 70, level=SURE).tolist() == [[False, True], [False, False]]


LAYERS, SAMPLES, MOST, RACES = 8, 600, 2, 80


def right_or_wrong(rng: np.random.Generator) -> np.ndarray:
    return (rng.random((LAYERS, SAMPLES)) < np.linspace(0.16, 0.02, LAYERS)[:, None]).astype(float)


def skewed(rng: np.random.Generator) -> np.ndarray:
    scale = rng.lognormal(0, 0.5, SAMPLES) * rng.lognormal(np.linspace(0.3, 0, LAYERS)[:, None], 0.7)
    return scale * rng.lognormal(0, 0.5, (LAYERS, SAMPLES))


def divergences(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As KL divergences are: a sample's size times a noise of the layer's; and how unsure fp32 is of the samples.

    A few samples make the means: the deviation is about four times the mean, the skewness about ten.
    """
    unsure = rng.lognormal(0, 2.0, SAMPLES)
    size = rng.lognormal(np.linspace(0.8, 0, LAYERS)[:, None], 0.2)
    return size * unsure * rng.chisquare(2, (LAYERS, SAMPLES)), unsure


def wrong(population: np.ndarray, chances: np.ndarray, rng: np.random.Generator) -> tuple[bool, int]:
    """Whether any look takes one of the first for less sensitive than another; and how many pairs are told apart.

    At the last look before all samples, whoever stops: a claim that is wrong shows there.
    """
    order = drawn(chances, int(rng.integers(2**31)))
    looks = tuple(int(each) for each in np.cumsum(racing.cut(SAMPLES, SAMPLES)))
    level = racing.level(len(looks), MOST * (LAYERS - MOST))
    values = {str(row): each[order[: looks[-2]]] for row, each in enumerate(population)}
    sure = racing.Race(values, looks, level, Draw(chances[order])).above()
    ranked = np.argsort(-population.mean(axis=1), kind="stable")
    first, others = ranked[:MOST], ranked[MOST:]
    return bool(sure[np.ix_(others, first)].any()), int(sure[np.ix_(first, others)].sum())


@pytest.mark.parametrize("kind", ["right or wrong", "skewed", "very skewed", "drawn by fp32"])
def test_a_race_decides_otherwise_than_all_samples_at_most_at_the_stated_rate(kind: str) -> None:
    rng = np.random.default_rng(0)
    missed, told = 0, 0
    for _ in range(RACES):
        chances = np.ones(SAMPLES)
        if kind == "right or wrong":
            population = right_or_wrong(rng)
        elif kind == "skewed":
            population = skewed(rng)
        else:
            population, unsure = divergences(rng)
            chances = 0.9 * unsure / unsure.mean() + 0.1 if kind == "drawn by fp32" else chances
        failed, apart = wrong(population, chances, rng)
        missed, told = missed + failed, told + apart
    assert told > RACES  # something was decided before the end
    # more often only by the chance of so few races
    assert stats.binomtest(missed, RACES, racing.ERROR_RATE, alternative="greater").pvalue > 0.01


def test_drawing_by_fp32_tells_more_apart_on_fewer_samples() -> None:
    rng = np.random.default_rng(1)
    told = {"equal": 0, "drawn": 0}
    for _ in range(20):
        population, unsure = divergences(rng)
        for name, chances in (("equal", np.ones(SAMPLES)), ("drawn", 0.9 * unsure / unsure.mean() + 0.1)):
            order = drawn(chances, int(rng.integers(2**31)))
            values = {str(row): each[order[:125]] for row, each in enumerate(population)}
            told[name] += int(racing.Race(values, (125,), SURE, Draw(chances[order])).above().sum())
    assert told["drawn"] > 2 * told["equal"]


def test_the_intervals_of_a_race_hold_at_every_look_at_the_stated_rate() -> None:
    """Of a mean by t, and of a paired difference by Tango's score; one look's intervals do not."""
    rng = np.random.default_rng(0)
    looks = (64, 144, 324, 729)
    metric = {
        name: resolve_metric(MetricSettings(name=name), has_labels=True, output_names=("y",))
        for name in ("mse", "top1")
    }
    races = 60
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
