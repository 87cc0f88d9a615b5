"""The mixed variants that the decision measured, as a drawing: fallback layers against the drop."""

from dataclasses import dataclass

from markupsafe import Markup

from service.domain.results import Decision, Interval, VariantScore
from service.reports.axis import Axis, axis_of
from service.reports.quantity import Quantity, counted
from service.reports.ranking_chart import tick_label
from service.reports.svg import drawing, element

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 620.0, 300.0, 64.0, 600.0, 22.0, 250.0
MOST_LABELS = 14


@dataclass(frozen=True)
class Step:
    """One measured variant; ``chosen`` is the one that the decision returns."""

    fallback: int
    drop: Interval
    within_budget: bool | None
    chosen: bool


def steps_of(decision: Decision, all_int8: VariantScore | None) -> tuple[Step, ...]:
    """The measured variants, fewest fallback layers first, with all-int8 as the one that has none."""
    chosen = decision.chosen.fallback if decision.chosen else None
    steps = [
        Step(len(each.fallback), each.score.drop, each.within_budget, each.fallback == chosen)
        for each in decision.measured
    ]
    if all_int8 is not None and all(step.fallback for step in steps):
        limit, value = decision.max_drop, all_int8.drop.value
        within = value <= limit if value is not None and limit is not None else None
        steps.append(Step(0, all_int8.drop, within, False))
    return tuple(sorted(steps, key=lambda step: step.fallback))


def draw_path(steps: tuple[Step, ...], max_drop: float | None, *, measure: str, quantity: Quantity) -> Markup:
    """Steps stand side by side in order (not to scale), the drop upwards, the budget as a line."""
    also = [] if max_drop is None else [max_drop]
    axis = axis_of([step.drop for step in steps], measure=measure, start=BOTTOM, stop=TOP, also=also)
    gap = (RIGHT - LEFT) / max(len(steps), 1)
    every = -(-len(steps) // MOST_LABELS)
    parts = [*_grid(axis, quantity)]
    if max_drop is not None:
        parts += _budget(axis.at(max_drop), quantity.with_unit(max_drop))
    for index, step in enumerate(steps):
        x = LEFT + gap * (index + 0.5)
        parts.append(_point(step, x, axis, quantity))
        if index % every == 0 or step.chosen:
            parts.append(element("text", str(step.fallback), x=x, y=BOTTOM + 18, class_="tick middle"))
    middle = (LEFT + RIGHT) / 2
    parts.append(element("text", "layers in floating point", x=middle, y=BOTTOM + 40, class_="tick middle"))
    title = f"Drop of each measured mixed variant, from {steps[0].fallback} to {steps[-1].fallback} fallback layers"
    return drawing("path", title, *parts, width=WIDTH, height=HEIGHT)


def _grid(axis: Axis, quantity: Quantity) -> list[Markup]:
    found = [element("text", quantity.unit, x=LEFT - 10, y=TOP - 8, class_="tick end")]
    for tick in axis.ticks():
        y = axis.at(tick)
        kind = "zero" if tick == 0 and axis.has_zero else "grid"
        found.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_=kind))
        found.append(element("text", tick_label(quantity, tick, log=axis.log), x=LEFT - 10, y=y + 4, class_="tick end"))
    return found


def _budget(y: float, limit: str) -> list[Markup]:
    return [
        element("rect", x=LEFT, y=TOP, width=RIGHT - LEFT, height=max(y - TOP, 0), class_="beyond"),
        element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="budget"),
        element("text", f"budget {limit}", x=RIGHT - 6, y=y - 6, class_="budget-text end"),
    ]


def _point(step: Step, x: float, axis: Axis, quantity: Quantity) -> Markup:
    kind = {True: "within", False: "over", None: "open"}[step.within_budget]
    told = f"{counted(step.fallback, 'fallback layer')}: drop {quantity.phrase(step.drop)}"
    parts = [element("title", told)]
    if step.drop.value is None:
        return element("g", *parts, element("text", "undefined", x=x, y=BOTTOM - 6, class_="tick middle"))
    if step.drop.low is not None and step.drop.high is not None:
        low, high = axis.at(step.drop.low), axis.at(step.drop.high)
        ends = f"M{x - 4:.2f} {low:.2f}h8M{x - 4:.2f} {high:.2f}h8M{x:.2f} {low:.2f}V{high:.2f}"
        parts.append(element("path", d=ends, class_="whisker"))
    y = axis.at(step.drop.value)
    if step.chosen:
        parts.append(element("circle", cx=x, cy=y, r=10, class_="ring"))
    parts.append(element("circle", cx=x, cy=y, r=5.5, class_="point"))
    return element("g", *parts, class_=f"step {kind}")
