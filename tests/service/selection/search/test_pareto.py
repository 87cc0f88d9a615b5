from itertools import pairwise

import numpy as np
from hypothesis import given, settings

from service.selection.problem import GroupConversion, Problem
from service.selection.search.pareto import pareto_curve
from tests.service.selection.search.problems import problem, problems, table

TOLERANCE = 1e-7


@given(problems(8))
@settings(deadline=None, max_examples=30)
def test_no_configuration_dominates_a_point_of_the_curve(asked: Problem) -> None:
    costs, losses = table(asked)
    curve = pareto_curve(asked, points=12)
    for point in curve:
        assert not ((costs < point.cost - TOLERANCE) & (losses <= point.loss + TOLERANCE / 10)).any()
        assert not ((costs <= point.cost + TOLERANCE / 10) & (losses < point.loss - TOLERANCE)).any()
        assert point.gap <= 1e-6
    assert curve[0].cost <= costs.min() + TOLERANCE
    assert curve[-1].loss <= losses.min() + TOLERANCE


@given(problems(8))
@settings(deadline=None, max_examples=20)
def test_along_the_curve_the_cost_rises_and_the_loss_falls(asked: Problem) -> None:
    curve = pareto_curve(asked, points=6)
    assert len(curve) <= 6
    assert all(one.cost < other.cost for one, other in pairwise(curve))
    assert all(one.loss > other.loss for one, other in pairwise(curve))


def test_a_layer_after_another_makes_the_whole_front_where_it_is_small() -> None:
    curve = pareto_curve(problem([8.0, 4.0, 2.0, 1.0]))
    assert [(point.cost, point.loss) for point in curve] == [(0, 15), (1, 7), (2, 3), (3, 1), (4, 0)]


def test_where_nothing_is_lost_there_is_one_point() -> None:
    (point,) = pareto_curve(problem([0.0, 0.0, 0.0]))
    assert (point.cost, point.loss, point.gap) == (0.0, 0.0, 0.0)


def test_all_in_floating_point_saves_conversions_and_costs_no_more_than_is_told() -> None:
    chain = [GroupConversion(place, (place + 1,), 1.0) for place in range(4)]
    curve = pareto_curve(problem([1.0, 2.0, 4.0, 2.0, 1.0], conversions=chain))
    assert (curve[0].cost, curve[-1].cost, curve[-1].loss) == (0.0, 5.0, 0.0)


def test_points_are_spread_over_costs_and_over_decades_of_loss() -> None:
    rng = np.random.default_rng(0)
    curve = pareto_curve(problem(rng.lognormal(0, 3, 40)), points=24)
    costs = np.array([point.cost for point in curve])
    assert len(curve) == 24
    assert np.diff(costs).max() <= 4
