"""The programme against all configurations, one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.selection.problem import GroupConversion, GroupInteraction, Problem
from service.selection.search.greedy import cheapest_along, greedy_path, safest_along
from service.selection.search.optimal import Infeasible, Optimum, Solution
from service.selection.search.programme import Effort
from tests.service.selection.search.problems import problem, problems, table

TOLERANCE = 1e-8
"""Of a sum of at most 16 numbers up to 20 and their pairs."""


def limits(values: np.ndarray) -> st.SearchStrategy[float]:
    """Between and on the values that configurations have, and below all of them."""
    return st.sampled_from(sorted(set(values.tolist()))) | st.floats(float(values.min()) - 1, float(values.max()) + 1)


def assert_cheapest_is_that_of_all(asked: Problem, limit: float) -> None:
    costs, losses = table(asked)
    inside = losses <= limit + 1e-9 * abs(limit)
    found = Optimum(asked).cheapest(limit)
    if not inside.any():
        assert isinstance(found, Infeasible)
        return
    assert isinstance(found, Solution)
    best = costs[inside].min()
    assert found.cost == pytest.approx(best, abs=TOLERANCE)
    assert found.loss <= limit + 1e-9 * abs(limit)
    assert (found.cost, found.loss) == (asked.cost(found.floating), asked.loss(found.floating))
    assert found.bound <= best + TOLERANCE
    assert found.gap <= 1e-6
    for place, floating in asked.fixed.items():
        assert found.floating[place] == floating


@given(problems(8), st.data())
@settings(deadline=None, max_examples=150)
def test_the_cheapest_within_a_loss_is_that_of_all_configurations(asked: Problem, data: st.DataObject) -> None:
    assert_cheapest_is_that_of_all(asked, data.draw(limits(table(asked)[1])))


@given(problems(16), st.data())
@settings(deadline=None, max_examples=15)
def test_so_it_is_with_up_to_sixteen_groups(asked: Problem, data: st.DataObject) -> None:
    assert_cheapest_is_that_of_all(asked, data.draw(limits(table(asked)[1])))


@given(problems(8), st.data())
@settings(deadline=None, max_examples=150)
def test_the_safest_within_a_cost_is_that_of_all_configurations(asked: Problem, data: st.DataObject) -> None:
    costs, losses = table(asked)
    limit = data.draw(limits(costs))
    inside = costs <= limit + 1e-9 * abs(limit)
    found = Optimum(asked).safest(limit)
    if not inside.any():
        assert isinstance(found, Infeasible)
        return
    assert isinstance(found, Solution)
    assert found.loss == pytest.approx(losses[inside].min(), abs=TOLERANCE)
    assert found.cost <= limit + 1e-9 * abs(limit)
    assert found.gap <= 1e-6


@given(problems(14), st.data())
@settings(deadline=None, max_examples=30)
def test_it_is_never_worse_than_greedy_even_without_a_search(asked: Problem, data: st.DataObject) -> None:
    limit = data.draw(limits(table(asked)[1]))
    for effort in (Effort(nodes=0, gap=0.5), None):
        for per_cost in (False, True):
            path = greedy_path(asked, per_cost=per_cost)
            greedy, best = cheapest_along(asked, path, limit), Optimum(asked, effort).cheapest(limit)
            if greedy is not None:
                assert isinstance(best, Solution)
                assert best.cost <= asked.cost(greedy) + TOLERANCE
            kept, least = safest_along(asked, path, limit), Optimum(asked, effort).safest(limit)
            if kept is not None:
                assert isinstance(least, Solution)
                assert least.loss <= asked.loss(kept) + TOLERANCE


def test_of_equal_costs_the_one_with_the_smaller_loss_is_found() -> None:
    found = Optimum(problem([3.0, 5.0, 4.0])).cheapest(9.0)
    assert isinstance(found, Solution)
    assert (found.cost, found.loss, found.gap) == (1.0, 7.0, 0.0)
    assert found.floating.tolist() == [False, True, False]


def test_contiguous_fallback_is_taken_where_conversions_are_dear() -> None:
    """Apart, the two worst are cheaper by themselves; each change of precision costs 1.5."""
    chain = [GroupConversion(place, (place + 1,), 1.5) for place in range(4)]
    losses = [0.0, 5.0, 4.0, 5.0, 0.0]
    apart, together = (
        Optimum(problem(losses, [2.0] * 5, conversions=several)).cheapest(4.5) for several in ([], chain)
    )
    assert isinstance(apart, Solution)
    assert isinstance(together, Solution)
    assert apart.floating.tolist() == [False, True, False, True, False]
    assert together.floating.tolist() == [False, True, True, True, False]
    assert together.cost == 3 * 2.0 + 2 * 1.5


def test_two_layers_that_only_hurt_together_need_but_one_in_floating_point() -> None:
    found = Optimum(problem([0.0, 0.0], [2.0, 1.0], interactions=[GroupInteraction(0, 1, 5.0)])).cheapest(1.0)
    assert isinstance(found, Solution)
    assert found.floating.tolist() == [False, True]


def test_errors_that_cancel_are_left_together() -> None:
    asked = problem([3.0, 3.0, 1.0], interactions=[GroupInteraction(0, 1, -5.0)])
    found = Optimum(asked).cheapest(1.0)
    assert isinstance(found, Solution)
    assert found.floating.tolist() == [False, False, True]


def test_what_pins_make_impossible_is_told_with_the_least_that_there_is() -> None:
    found = Optimum(problem([3.0, 5.0], fixed={0: False})).cheapest(2.0)
    assert isinstance(found, Infeasible)
    assert "pinned has a predicted loss within 2; the least found is 3" in found.reason


def test_what_is_within_the_limit_for_the_solver_only_is_not_taken_and_the_rest_is_proven() -> None:
    """The third alone in floating point leaves a loss of 1.0000005, which HiGHS lets pass for 1."""
    found = Optimum(problem([0.5, 0.5000005, 0.2], [5.0, 6.0, 1.0])).cheapest(1.0)
    assert isinstance(found, Solution)
    assert (found.cost, found.bound, found.gap) == (5.0, 5.0, 0.0)


def test_no_loss_at_all_is_found_though_sums_are_rounded() -> None:
    found = Optimum(problem([1.062, 2.938, 2.0, 0.0], [1.0, 1.0, 1.0, 0.0])).cheapest(0.0)
    assert isinstance(found, Solution)
    assert (found.cost, found.loss, found.gap) == (3.0, 0.0, 0.0)


def test_what_others_take_from_the_loss_leaves_room_for_a_group_that_is_too_much_alone() -> None:
    pairs = [GroupInteraction(0, 1, -2.0), GroupInteraction(0, 2, -5.0)]
    found = Optimum(problem([0.0, 0.0, 8.0], interactions=pairs)).cheapest(1.0)
    assert isinstance(found, Solution)
    assert (found.cost, found.loss) == (0.0, 1.0)


def test_weights_of_any_size_are_weighed() -> None:
    for size in (1e-308, 1e-30, 1e30):
        found = Optimum(problem([3.0 * size, 5.0 * size], [2.0 * size, size])).cheapest(4.0 * size)
        assert isinstance(found, Solution)
        assert found.floating.tolist() == [False, True]


def test_a_search_that_stops_early_says_how_far_it_may_be_from_the_best() -> None:
    """Many alike, so that a proof takes long."""
    rng = np.random.default_rng(0)
    losses = rng.uniform(1, 2, 60).round(3)
    pairs = [GroupInteraction(one, other, 0.3) for one in range(60) for other in range(one + 1, 60, 3)]
    asked = problem(losses, rng.uniform(1, 2, 60).round(3), interactions=pairs)
    found = Optimum(asked, Effort(nodes=1, gap=0.0)).cheapest(float(losses.sum()) / 2)
    assert isinstance(found, Solution)
    assert found.gap > 0
    assert found.bound == pytest.approx(found.cost * (1 - found.gap))


def test_the_same_question_has_the_same_answer() -> None:
    rng = np.random.default_rng(1)
    asked = problem(rng.lognormal(0, 2, 200), rng.lognormal(0, 1, 200))
    first, second = (Optimum(asked).cheapest(20.0) for _ in range(2))
    assert isinstance(first, Solution)
    assert isinstance(second, Solution)
    assert first.floating.tolist() == second.floating.tolist()
    assert (first.bound, first.gap) == (second.bound, second.gap)


def test_a_thousand_groups_are_decided_within_a_ten_thousandth_of_the_best() -> None:
    rng = np.random.default_rng(2)
    chain = [GroupConversion(place, (place + 1,), float(rng.lognormal(0, 1))) for place in range(999)]
    asked = problem(rng.lognormal(-3, 2, 1000), rng.lognormal(2, 1, 1000), conversions=chain)
    found = Optimum(asked).cheapest(asked.loss(asked.all_int8()) / 10)
    assert isinstance(found, Solution)
    assert found.gap <= 1e-4
