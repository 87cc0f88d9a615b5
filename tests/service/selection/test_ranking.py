import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.results import Interval, VariantScore
from service.selection.ranking import continuous, is_significant, rank_by, rank_layers

NUMBERS = st.none() | st.floats(-1, 1)


def interval(value: float | None, low: float | None = None, p: float | None = None) -> Interval:
    return Interval(value=value, low=low, high=None, method="t", samples=100, p_value=p)


def score(drop: Interval, **measures: float | None) -> VariantScore:
    found = {name: interval(value) for name, value in measures.items()}
    return VariantScore(variant="layer:x", metric=interval(0.5), drop=drop, measures=found)


def sure(drop: float, **measures: float | None) -> VariantScore:
    return score(interval(drop, low=drop / 2, p=0.001), **measures)


def noise(drop: float | None, **measures: float | None) -> VariantScore:
    return score(interval(drop, low=None if drop is None else drop - 1, p=0.5), **measures)


def order(scores: dict[str, VariantScore]) -> list[str]:
    return [each.layer_id for each in rank_layers(scores)]


@pytest.mark.parametrize(
    ("drop", "significant"),
    [
        (interval(0.1, low=0.05, p=0.01), True),
        (interval(0.1, low=0.05), True),
        (interval(0.1, low=0.0, p=0.01), False),
        (interval(0.1, low=-0.01, p=0.01), False),
        (interval(0.1, low=0.05, p=0.05), False),
        (interval(0.1, low=0.05, p=0.2), False),
        (interval(-0.1, low=-0.2, p=0.001), False),
        (interval(0.1), False),
        (interval(None), False),
    ],
    ids=[
        "bound and p",
        "bound, without a test",
        "bound at zero",
        "bound below zero",
        "p at the level",
        "p above the level",
        "an improvement",
        "no interval",
        "undefined",
    ],
)
def test_a_drop_is_significant_where_bound_and_p_value_agree(drop: Interval, significant: bool) -> None:
    assert is_significant(drop) is significant


def test_sure_drops_come_first_by_size_and_the_rest_by_kl() -> None:
    scores = {
        "quiet": noise(0.30, kl=0.1),
        "small": sure(0.01, kl=0.0),
        "loud": noise(-0.01, kl=0.9),
        "large": sure(0.20, kl=0.0),
    }
    assert order(scores) == ["large", "small", "loud", "quiet"]
    assert [each.significant for each in rank_layers(scores)] == [True, True, False, False]


def test_equal_sure_drops_are_told_apart_by_kl() -> None:
    assert order({"a": sure(0.1, kl=0.2), "b": sure(0.1, kl=0.3), "c": sure(0.1, kl=0.1)}) == ["b", "a", "c"]


def test_without_kl_the_output_mse_tells_ties_apart() -> None:
    assert order({"a": noise(0.0, mse=1.0), "b": noise(0.0, mse=2.0)}) == ["b", "a"]
    assert order({"a": noise(0.0, kl=None, mse=1.0), "b": noise(0.0, kl=None, mse=2.0)}) == ["b", "a"]


def test_kl_goes_before_mse() -> None:
    assert order({"a": noise(0.0, kl=1.0, mse=2.0), "b": noise(0.0, kl=2.0, mse=1.0)}) == ["b", "a"]
    assert continuous(noise(0.0, kl=1.0, mse=2.0)) == 1.0


def test_what_nothing_tells_apart_keeps_the_tables_order() -> None:
    assert order({name: noise(0.0, kl=0.5) for name in "cab"}) == ["c", "a", "b"]


def test_a_layer_without_a_number_comes_last() -> None:
    assert order({"none": noise(None), "a": noise(-0.5), "b": noise(0.0, kl=0.0)})[-1] == "none"


def test_no_layers_have_no_ranking() -> None:
    assert rank_layers({}) == ()


SCORES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.builds(
        lambda value, low, p, kl: score(interval(value, low=low, p=p), kl=kl),
        NUMBERS,
        NUMBERS,
        st.none() | st.floats(0, 1),
        NUMBERS,
    ),
    max_size=8,
)


@given(SCORES)
def test_a_ranking_holds_each_layer_once_significant_ones_first_and_by_size(scores: dict[str, VariantScore]) -> None:
    ranking = rank_layers(scores)
    assert sorted(each.layer_id for each in ranking) == sorted(scores)
    flags = [each.significant for each in ranking]
    assert flags == sorted(flags, reverse=True)
    drops = [scores[each.layer_id].drop.value or 0.0 for each in ranking if each.significant]
    assert drops == sorted(drops, reverse=True)
    rest = [continuous(scores[each.layer_id]) for each in ranking if not each.significant]
    assert rest == sorted(rest, reverse=True)


def test_by_one_measure_the_largest_comes_first_and_what_has_no_number_last() -> None:
    """A divergence above zero is no noise, however few samples make most of it."""
    values = {
        "nothing": Interval(value=0.0, low=0.0, high=0.0, method="t", samples=5),
        "scattered": Interval(value=0.1, low=-0.1, high=0.3, method="t", samples=5),
        "none": Interval(value=None, low=None, high=None, method="no derivative", samples=5),
        "large": Interval(value=0.5, low=0.4, high=0.6, method="t", samples=5),
    }
    found = [(each.layer_id, each.significant) for each in rank_by(values)]
    assert found == [("large", True), ("scattered", True), ("nothing", False), ("none", False)]
