"""Groups into floating point one after another, each time the one that helps most: by loss, or by loss per cost.

What a group helps is what its int8 adds to the predicted loss beside those that are in int8 still, interactions
included; what it costs includes the conversions that it makes and saves. Equal groups keep their order.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from service.selection.problem import Bools, Floats, GroupConversion, Problem, within

DRIFT = 1e-12
"""Relative: of a sum that was changed step by step."""


@dataclass(frozen=True, eq=False)
class Path:
    """From all in int8 to all in floating point, as far as pins allow.

    ``order``: the groups (places) as they move; ``costs``, ``losses``: (steps + 1,) with the first 0, 1, ... moved.
    """

    start: Bools
    order: tuple[int, ...]
    costs: Floats
    losses: Floats

    def configuration(self, steps: int) -> Bools:
        """(n,) after so many steps."""
        floating = self.start.copy()
        floating[list(self.order[:steps])] = True
        return floating


def greedy_path(problem: Problem, *, per_cost: bool) -> Path:
    """The whole path; with ``per_cost`` a group that helps and costs nothing goes first."""
    start = problem.all_int8()
    state = Moves(problem, start)
    free = problem.all_floating() & ~start
    order: list[int] = []
    costs, losses = [state.cost], [state.loss]
    while free.any():
        worth = state.gains.copy()
        if per_cost:
            dear = state.extra > 0
            worth[dear] /= state.extra[dear]
            worth[~dear & (worth > 0)] += np.inf
        worth[~free] = -np.inf
        best = _best(worth, state.gains, free)
        state.flip(best)
        free[best] = False
        order.append(best)
        costs.append(state.cost)
        losses.append(state.loss)
    return Path(start, tuple(order), np.array(costs), np.array(losses))


def cheapest_along(problem: Problem, path: Path, max_loss: float) -> Bools | None:
    """The cheapest configuration of the path within the loss, less what can go back to int8; None where none is."""
    inside = [step for step, loss in enumerate(path.losses) if within(loss, max_loss)]
    if not inside:
        return None
    floating = path.configuration(min(inside, key=lambda step: (path.costs[step], step)))
    return _taken_back(problem, floating, max_loss)


def safest_along(problem: Problem, path: Path, max_cost: float) -> Bools | None:
    """The configuration of the path with the least loss within the cost; None where none is."""
    inside = [step for step, cost in enumerate(path.costs) if within(cost, max_cost)]
    if not inside:
        return None
    return path.configuration(min(inside, key=lambda step: (path.losses[step], step)))


def _best(worth: Floats, gains: Floats, free: Bools) -> int:
    """The place of the most worth; of several that cost nothing, the one that helps most."""
    endless = free & np.isposinf(worth)
    if endless.any():
        return int(np.where(endless, gains, -np.inf).argmax())
    return int(worth.argmax())


def _taken_back(problem: Problem, floating: Bools, max_loss: float) -> Bools:
    """Back to int8 goes each group, the dearest first, without which the loss still holds and the cost falls."""
    state = Moves(problem, floating)
    movable = [int(place) for place in np.flatnonzero(floating) if place not in problem.fixed]
    for place in sorted(movable, key=lambda each: (-problem.costs[each], each)):
        if state.extra[place] > 0 and within(max(0.0, state.sum + state.gains[place]), max_loss):
            state.flip(place)
    # sums of many small steps drift: what is handed on is within the limit by the definition
    return state.floating if within(problem.loss(state.floating), max_loss) else floating


class Moves:
    """A configuration that changes one group at a time, its ``cost``, and the ``sum`` whose positive part is its loss.

    ``gains``: what each group's int8 adds to the loss; ``extra``: what its floating point adds to the cost; both (n,)
    and beside what the other groups run in.
    """

    def __init__(self, problem: Problem, floating: Bools) -> None:
        self.floating = floating.copy()
        self.cost = problem.cost(floating)
        self._problem = problem
        n = len(problem.groups)
        self._pairs: list[list[tuple[int, float]]] = [[] for _ in range(n)]
        self._size = float(problem.losses.sum()) + sum(abs(each.value) for each in problem.interactions)
        self.sum = float(problem.losses[~floating].sum())  # may fall below zero, as a loss does not
        for pair in problem.interactions:
            self._pairs[pair.first].append((pair.second, pair.value))
            self._pairs[pair.second].append((pair.first, pair.value))
            self.sum += 0.0 if floating[pair.first] or floating[pair.second] else pair.value
        self._touching: list[list[GroupConversion]] = [[] for _ in range(n)]
        for each in problem.conversions:
            for place in {each.source, *each.targets}:
                self._touching[place].append(each)
        self.gains = problem.losses.copy()
        for place, pairs in enumerate(self._pairs):
            self.gains[place] += sum(value for other, value in pairs if not floating[other])
        self.extra = problem.costs.copy()
        self._refresh(range(n))

    @property
    def loss(self) -> float:
        """Never negative; what is left of the largest sum by rounding is nothing."""
        return self.sum if self.sum > DRIFT * self._size else 0.0

    def flip(self, place: int) -> None:
        """One group into the other precision."""
        up = not self.floating[place]
        self.cost += float(self.extra[place]) * (1 if up else -1)
        self.sum -= float(self.gains[place]) * (1 if up else -1)
        self.floating[place] = up
        for other, value in self._pairs[place]:
            self.gains[other] -= value if up else -value
        self._refresh({member for each in self._touching[place] for member in (each.source, *each.targets)})

    def _refresh(self, places: Iterable[int]) -> None:
        for place in places:
            now, paid = self.floating[place], [0.0, 0.0]
            for up in (False, True):
                self.floating[place] = up
                paid[up] = sum(each.cost for each in self._touching[place] if self._paid(each))
            self.floating[place] = now
            self.extra[place] = self._problem.costs[place] + paid[True] - paid[False]

    def _paid(self, each: GroupConversion) -> bool:
        source = self.floating[each.source]
        return any(self.floating[target] != source for target in each.targets)
