"""The cheapest configuration within a predicted loss, or the safest within a cost; and how far the best may be.

The better of the mixed-integer programme's and of the greedy paths': where the search stops at its limit of nodes it
may hold less than these, or nothing.
"""

from dataclasses import dataclass

import numpy as np

from service.selection.problem import Bools, Problem, within
from service.selection.search.greedy import Path, cheapest_along, greedy_path, safest_along
from service.selection.search.programme import ROUGH, SMALL, Effort, Objective, Programme

PROVEN = 1e-8
"""Share of the largest weight: HiGHS stops at an absolute gap of 1e-9 of it."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The best that was found, and what is proven of it.

    ``bound``: no configuration within the limit has less of what was minimised. ``gap``: how much less, at most, as a
    share of what was found; 0 is proven optimal.
    """

    floating: Bools
    cost: float
    loss: float
    bound: float
    gap: float


@dataclass(frozen=True)
class Infeasible:
    """No configuration is within the limit, and why."""

    reason: str


class Optimum:
    """Answers of one problem, for any limit."""

    def __init__(self, problem: Problem, effort: Effort | None = None) -> None:
        self._problem = problem
        self._effort = effort or Effort.of(problem)
        self._ties = self._effort if len(problem.groups) <= SMALL else ROUGH
        self._programme = Programme(problem)
        self._paths: list[Path] = [greedy_path(problem, per_cost=each) for each in (False, True)]

    def cheapest(self, max_loss: float) -> Solution | Infeasible:
        """The least cost with a predicted loss of at most ``max_loss``; of several, the one with the least loss."""
        found = self._programme.minimise("cost", max_loss, self._effort)
        best = self._least("cost", max_loss, found.floating)
        if best is None:
            return self._none("loss", max_loss)
        limit = self._problem.cost(best)
        safer = self._least("loss", limit, self._programme.minimise("loss", limit, self._ties).floating, best)
        return self._solution("cost", best if safer is None else safer, found.bound)

    def safest(self, max_cost: float) -> Solution | Infeasible:
        """The least predicted loss with a cost of at most ``max_cost``; of several, the one with the least cost."""
        found = self._programme.minimise("loss", max_cost, self._effort)
        best = self._least("loss", max_cost, found.floating)
        if best is None:
            return self._none("cost", max_cost)
        limit = self._problem.loss(best)
        cheaper = self._least("cost", limit, self._programme.minimise("cost", limit, self._ties).floating, best)
        return self._solution("loss", best if cheaper is None else cheaper, found.bound)

    def _least(self, objective: Objective, limit: float, *found: Bools | None) -> Bools | None:
        """Of what was found and the greedy ones, within the limit of the other number; the first of equals."""
        along = cheapest_along if objective == "cost" else safest_along
        value, limited = self._problem.cost, self._problem.loss
        if objective == "loss":
            value, limited = limited, value
        several = [*found, *(along(self._problem, path, limit) for path in self._paths)]
        inside = [each for each in several if each is not None and within(limited(each), limit)]
        return min(inside, key=lambda each: (value(each), limited(each)), default=None)

    def _solution(self, objective: Objective, floating: Bools, bound: float) -> Solution:
        """A bound that differs from what was found by HiGHS's own tolerance is the same."""
        asked = self._problem
        cost, loss = asked.cost(floating), asked.loss(floating)
        value, floor, weights = loss, 0.0, [*asked.losses, *(abs(each.value) for each in asked.interactions)]
        if objective == "cost":
            value, floor = cost, asked.base + float(np.minimum(asked.costs, 0.0).sum())
            weights = [*np.abs(asked.costs), *(each.cost for each in asked.conversions)]
        tight = min(max(bound, floor), value)
        if within(value, tight) or value - tight <= PROVEN * max(weights):
            return Solution(floating, cost, loss, bound=value, gap=0.0)
        return Solution(floating, cost, loss, bound=tight, gap=(value - tight) / abs(value) if value else float("inf"))

    def _none(self, what: Objective, limit: float) -> Infeasible:
        asked = self._problem
        found = self._programme.minimise(what, np.inf, self._effort).floating
        value = asked.loss if what == "loss" else asked.cost
        ends = [asked.all_floating(), asked.all_int8(), *([] if found is None else [found])]
        pins = " with the layers that are pinned" if asked.fixed else ""
        least = min(value(each) for each in ends)
        return Infeasible(
            f"no configuration{pins} has a predicted {what} within {limit:g}; the least found is {least:g}"
        )
