import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from service.domain.results import Interval
from service.selection.compare import compare_tables, spearman


def table(half: float = 0.0, **values: float | None) -> dict[str, Interval]:
    return {
        layer: Interval(
            value=value,
            low=None if value is None else value - half,
            high=None if value is None else value + half,
            method="t",
            samples=9,
        )
        for layer, value in values.items()
    }


def test_the_same_table_agrees_with_itself() -> None:
    one = table(a=3, b=2, c=1)
    found = compare_tables(one, one)
    assert (found.layers, found.spearman, found.disagreements) == (3, 1.0, ())


def test_layers_whose_places_exclude_each_other_disagree_the_farthest_first() -> None:
    found = compare_tables(table(a=5, b=4, c=3, d=2, e=1), table(a=1, b=4, c=3, d=5, e=2))
    assert [each.layer for each in found.disagreements] == ["a", "d", "e"]
    (first, *_) = found.disagreements
    assert (first.first.rank, first.second.rank) == (1, 5)


def test_places_that_intervals_leave_open_are_no_disagreement() -> None:
    found = compare_tables(table(2, a=3, b=2, c=1), table(2, a=1, b=2, c=3))
    assert (found.spearman, found.disagreements) == (-1.0, ())
    assert compare_tables(table(a=3, b=2, c=1), table(2, a=1, b=2, c=3)).disagreements == ()


def test_layers_of_one_table_only_are_named_and_those_without_a_number_are_none() -> None:
    found = compare_tables(table(a=1, b=2, c=3, x=1), table(a=1, b=2, c=None, y=1))
    assert (found.layers, found.only_first, found.only_second) == (2, ("c", "x"), ("y",))


def test_without_two_layers_or_with_nothing_but_ties_there_is_no_correlation() -> None:
    assert compare_tables({}, {}).spearman is None
    assert compare_tables(table(a=1), table(a=1)).spearman is None
    assert compare_tables(table(a=1, b=1), table(a=1, b=2)).spearman is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_ties_share_their_ranks_as_scipy_has_it(pairs: list[tuple[int, int]]) -> None:
    one, other = ([float(each) for each in side] for side in zip(*pairs, strict=True))
    found = spearman(one, other)
    if found is None:
        assert len(set(one)) == 1 or len(set(other)) == 1
    else:
        assert found == pytest.approx(float(np.asarray(spearmanr(one, other).statistic)))
