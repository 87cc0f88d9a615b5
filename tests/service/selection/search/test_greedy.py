import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.selection.problem import GroupConversion, GroupInteraction, Problem
from service.selection.search.greedy import cheapest_along, greedy_path
from service.selection.search.swaps import cheaper_neighbours
from tests.service.selection.search.problems import configurations, problem, problems

LOSSES, COSTS = [8.0, 6.0, 1.0], [4.0, 1.0, 1.0]


def test_the_most_sensitive_goes_first_or_that_which_helps_most_for_its_cost() -> None:
    asked = problem(LOSSES, COSTS)
    assert greedy_path(asked, per_cost=False).order == (0, 1, 2)
    assert greedy_path(asked, per_cost=True).order == (1, 0, 2)


def test_a_group_beside_one_in_floating_point_costs_its_conversions_less() -> None:
    chain = [GroupConversion(place, (place + 1,), 2.0) for place in range(4)]
    found = greedy_path(problem([1.6, 1.0, 9.0, 1.1, 1.6], conversions=chain), per_cost=True)
    assert found.order[:2] == (2, 3)
    assert found.costs.tolist() == [0, 5, 6, *found.costs[3:]]


def test_what_only_hurts_beside_another_helps_no_more_once_that_is_out() -> None:
    asked = problem([1.0, 1.0, 1.5], interactions=[GroupInteraction(0, 1, 2.0)])
    assert greedy_path(asked, per_cost=False).order == (0, 2, 1)


def test_what_is_within_the_loss_without_an_early_group_lets_it_go_back() -> None:
    asked = problem([1.0, 4.0, 5.0], [10.0, 4.0, 5.0])
    found = cheapest_along(asked, greedy_path(asked, per_cost=False), 5.0)
    assert found is not None
    assert found.tolist() == [False, False, True]


@given(problems(10), st.booleans())
def test_along_a_path_costs_and_losses_are_those_of_its_configurations(asked: Problem, per_cost: bool) -> None:
    path = greedy_path(asked, per_cost=per_cost)
    assert sorted(path.order) == [place for place in range(len(asked.groups)) if place not in asked.fixed]
    for step in range(len(path.order) + 1):
        floating = path.configuration(step)
        assert path.costs[step] == pytest.approx(asked.cost(floating), abs=1e-9)
        assert path.losses[step] == pytest.approx(asked.loss(floating), abs=1e-9)


@given(problems(7), st.data())
def test_neighbours_cost_less_hold_the_pins_and_differ_by_one_back_and_at_most_one_out(
    asked: Problem, data: st.DataObject
) -> None:
    every = configurations(asked)
    floating = every[data.draw(st.integers(0, len(every) - 1))]
    found = cheaper_neighbours(asked, floating, 5)
    assert len(found) <= 5
    losses = [asked.loss(each) for each in found]
    assert losses == sorted(losses)
    for each in found:
        assert asked.cost(each) < asked.cost(floating)
        assert (floating & ~each).sum() == 1
        assert (each & ~floating).sum() <= 1
        assert (every == each).all(axis=1).any(), "the pins hold"


def test_of_the_neighbours_those_with_the_least_loss_are_kept() -> None:
    asked = problem([5.0, 4.0, 3.0, 0.1], [9.0, 5.0, 5.0, 5.0])
    found = cheaper_neighbours(asked, np.array([True, False, False, False]), 2)
    assert [each.tolist() for each in found] == [[False, True, False, False], [False, False, True, False]]
