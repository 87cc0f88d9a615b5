"""The trade-off: configurations of which none has both a lower cost and a lower predicted loss than another.

Between the two ends, the widest step (of the cost's range, and of the loss's decades) is divided again and again: by
the cheapest configuration within the geometric mean of its two losses.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from service.selection.problem import Problem, within
from service.selection.search.optimal import Infeasible, Optimum, Solution
from service.selection.search.programme import SMALL, Effort

POINTS = 32
DECADES = 4
"""Losses below this many powers of ten under that of all int8 are the same to any metric."""
ALIKE = 1.02
"""Losses whose ratio is less are not told apart."""


@dataclass(frozen=True)
class _Step:
    """Between two points; whatever lies between them has a loss above ``low``, with which ``safe`` is the cheapest."""

    cheap: Solution
    safe: Solution
    low: float


def pareto_curve(problem: Problem, *, points: int = POINTS, effort: Effort | None = None) -> tuple[Solution, ...]:
    """At most ``points``, the cheapest first; bound and gap of each are of its cost within its loss.

    The first has the least cost of all (where no layer is dearer in int8: all in int8), the last the least loss.
    """
    optimum = Optimum(problem, effort or curve_effort(problem))
    ends = [_solved(optimum.cheapest(np.inf)), _solved(optimum.cheapest(_solved(optimum.safest(np.inf)).loss))]
    floor = ends[0].loss * 10.0**-DECADES
    found, steps = list(ends), [_Step(ends[0], ends[1], max(ends[1].loss, floor))]
    while steps and len(found) < points:
        step = max(steps, key=lambda each: _width(each, ends, floor))
        steps.remove(step)
        if step.safe.cost <= step.cheap.cost or step.cheap.loss <= step.low * ALIKE:
            continue
        middle = math.sqrt(step.low * step.cheap.loss)
        point = _solved(optimum.cheapest(middle))
        if point.cost < step.safe.cost:
            found.append(point)
            steps.append(_Step(point, step.safe, step.low))
            steps.append(_Step(step.cheap, point, middle))
        else:
            steps.append(_Step(step.cheap, step.safe, middle))
    return non_dominated(found)


def curve_effort(problem: Problem) -> Effort:
    """One answer of many: less than for a single one where there are many groups."""
    return Effort.of(problem) if len(problem.groups) <= SMALL else Effort(nodes=200, gap=1e-3)


def non_dominated(several: Iterable[Solution]) -> tuple[Solution, ...]:
    """The cheapest first; of equals one."""
    kept: list[Solution] = []
    for each in sorted(several, key=lambda one: (one.cost, one.loss)):
        if not kept or (each.loss < kept[-1].loss and not within(kept[-1].loss, each.loss)):
            kept.append(each)
    return tuple(kept)


def _solved(found: Solution | Infeasible) -> Solution:
    assert isinstance(found, Solution), "limits lie between what two configurations have"
    return found


def _width(step: _Step, ends: list[Solution], floor: float) -> float:
    cost = (step.safe.cost - step.cheap.cost) / ((ends[1].cost - ends[0].cost) or 1.0)
    if floor <= 0:
        return cost
    return cost + math.log10(max(step.cheap.loss, floor) / max(step.low, floor)) / DECADES
