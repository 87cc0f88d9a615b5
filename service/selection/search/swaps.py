"""The neighbours of a configuration that cost less: one group back to int8, and at most one other out of it."""

import numpy as np

from service.selection.problem import Bools, Problem
from service.selection.search.greedy import Moves


def cheaper_neighbours(problem: Problem, floating: Bools, most: int) -> tuple[Bools, ...]:
    """At most ``most``, with the least predicted loss first; all cost less than the configuration, and hold its pins.

    Which of many are looked at closely goes by sums of their two moves, which leave out what the two do to each other.
    """
    moves = Moves(problem, floating)
    free = np.array([each.floating is None for each in problem.groups], dtype=bool)
    back, out = np.flatnonzero(free & floating), np.flatnonzero(free & ~floating)
    # rows: which group goes back to int8; columns: which goes out, the last for none
    cost = -moves.extra[back][:, None] + np.append(moves.extra[out], 0.0)[None, :]
    loss = moves.gains[back][:, None] - np.append(moves.gains[out], 0.0)[None, :]
    likely = np.argsort(np.where(cost < 0, loss, np.inf), axis=None, kind="stable")[: 4 * most]
    found: list[tuple[float, int, Bools]] = []
    now = problem.cost(floating)
    for row, column in zip(*np.unravel_index(likely, cost.shape), strict=True):
        each = floating.copy()
        each[back[row]] = False
        if column < len(out):
            each[out[column]] = True
        if problem.cost(each) < now:
            found.append((problem.loss(each), len(found), each))
    return tuple(each for _, _, each in sorted(found, key=lambda entry: entry[:2])[:most])
