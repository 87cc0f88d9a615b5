"""The search is driven by a simulated table: which prefix lengths pass, were they measured."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.selection.greedy import search


def run(table: list[bool]) -> tuple[int, list[tuple[int, ...]]]:
    """The length found and the rounds measured; ``table[k]``: whether the first k layers in float pass."""
    known = {0: table[0], len(table) - 1: True}
    rounds = []
    while (step := search(known)).measure:
        assert not set(step.measure) & set(known), "nothing is measured twice"
        rounds.append(step.measure)
        known |= {length: table[length] for length in step.measure}
    return step.found, rounds


def needs(shortest: int, layers: int) -> list[bool]:
    return [length >= shortest for length in range(layers + 1)]


@pytest.mark.parametrize("layers", [1, 2, 3, 10, 57])
def test_where_longer_is_never_worse_the_shortest_list_is_found(layers: int) -> None:
    for shortest in range(layers + 1):
        found, rounds = run(needs(shortest, layers))
        assert found == shortest
        # each round at least halves the distance between failing and passing
        assert len(rounds) <= math.ceil(math.log2(layers + 1)) + 1


def test_all_int8_within_the_budget_measures_nothing() -> None:
    assert run(needs(0, 20)) == (0, [])


def test_short_lists_are_measured_first_and_together() -> None:
    assert search({0: False, 20: True}).measure == (1, 2, 4, 8, 16)


def test_between_a_failing_and_a_passing_length_the_search_goes_on_above_the_failing_one() -> None:
    assert search({0: False, 1: False, 2: False, 4: False, 8: True, 16: True, 20: True}).measure == (5, 6)


def test_where_only_all_layers_pass_that_is_what_is_found() -> None:
    found, _ = run(needs(20, 20))
    assert found == 20


@given(st.lists(st.booleans(), min_size=0, max_size=60))
def test_what_is_found_passes_and_the_next_shorter_list_was_measured_and_fails(inner: list[bool]) -> None:
    """Whatever the table: layers interact, so a longer list may be worse."""
    table = [*inner, True]
    found, rounds = run(table)
    measured = {length for each in rounds for length in each} | {0, len(table) - 1}
    assert table[found]
    assert found == 0 or (found - 1 in measured and not table[found - 1])
    assert not any(table[length] for length in measured if length < found)
