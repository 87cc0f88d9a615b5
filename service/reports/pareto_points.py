"""What the decision weighed: candidates as predicted, and lists as measured, each with its cost."""

from dataclasses import dataclass, replace
from typing import Self

from service.domain.layers import ALL_INT8
from service.domain.results import CurvePoint, Decision, Interval, PredictedDrop
from service.reports.report import Report
from service.selection.budget import Limit

REFERENCE = Interval(value=0.0, low=None, high=None, method="the reference itself", samples=0)


@dataclass(frozen=True)
class ParetoPoint:
    """One list that was measured. ``name``: of a list that everybody knows (all int8, all float).

    ``within_budget``: by its interval. True: the upper end is within; False: the lower end is beyond; None: neither is
    sure, or there is no budget.
    ``cost`` None: it is no candidate (it splits a group, or a pin forbids it), and is not drawn. ``control``: measured
    as a control on all samples, or the reference itself; not a list that was tried.
    """

    fallback: int
    cost: float | None
    drop: Interval
    predicted: PredictedDrop | None
    within_budget: bool | None
    chosen: bool = False
    name: str | None = None
    control: bool = False


@dataclass(frozen=True)
class Pareto:
    """A decision by evidence. ``curve`` is predicted, ``points`` are measured; both the cheapest first.

    ``samples``: that the lists were measured on; ``held_out``: that they were not chosen on.
    """

    cost: str
    curve: tuple[CurvePoint, ...]
    points: tuple[ParetoPoint, ...]
    max_drop: float | None
    samples: int
    held_out: bool

    @classmethod
    def of(cls, report: Report) -> Self | None:
        """None where nothing was searched among: there is no decision, or its curve has fewer than two candidates."""
        decision = report.decision
        if decision is None or decision.cost is None or len(decision.curve) < 2:
            return None
        points = [*_measured(decision), *_ends(report, decision)]
        return cls(
            cost=decision.cost,
            curve=decision.curve,
            points=tuple(sorted(points, key=lambda each: (each.cost is None, each.cost or 0.0, each.fallback))),
            max_drop=decision.max_drop,
            samples=max((each.drop.samples for each in points if not each.control), default=0),
            held_out=not decision.same_samples,
        )

    @property
    def drawn(self) -> tuple[ParetoPoint, ...]:
        """Those that have a place on the drawing."""
        return tuple(each for each in self.points if each.cost is not None and each.drop.value is not None)


def _measured(decision: Decision) -> list[ParetoPoint]:
    chosen = decision.chosen.fallback if decision.chosen else None
    return [
        ParetoPoint(
            fallback=len(each.fallback),
            cost=each.cost,
            drop=each.score.drop,
            predicted=each.predicted,
            within_budget=_within(each.score.drop, decision.max_drop),
            chosen=each.fallback == chosen,
            name=None if each.fallback else "all int8",
        )
        for each in decision.measured
    ]


def _ends(report: Report, decision: Decision) -> list[ParetoPoint]:
    """All int8 and all float, where the curve tells their costs and no list that was tried is the same."""
    cheapest, safest = decision.curve[0], decision.curve[-1]
    tried, control = {each.fallback for each in decision.measured}, report.controls.get(ALL_INT8)
    found = []
    if control is not None and () not in tried:
        known = next((each for each in decision.curve if not each.fallback), None)
        int8 = ParetoPoint(
            0, None, control.drop, None, _within(control.drop, decision.max_drop), False, "all int8", True
        )
        found.append(replace(int8, cost=known.cost, predicted=known.predicted) if known else int8)
    layers = sum(each.scored for each in report.layers)
    if safest is not cheapest and len(safest.fallback) == layers and safest.fallback not in tried:
        within = None if decision.max_drop is None else True
        found.append(ParetoPoint(layers, safest.cost, REFERENCE, None, within, False, "all float", True))
    return found


def _within(drop: Interval, limit: float | None) -> bool | None:
    if limit is None or drop.low is None:
        return None
    if Limit(max_drop=limit).surely_holds(drop):
        return True
    return False if drop.low > limit else None
