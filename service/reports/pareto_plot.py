"""Cost against drop: the candidates as predicted, and those that were measured, as a drawing."""

from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from service.domain.results import CurvePoint, PredictedDrop
from service.reports.axis import Axis, linear_axis, span_axis
from service.reports.cost_quantity import CostQuantity
from service.reports.pareto_points import Pareto, ParetoPoint
from service.reports.quantity import Quantity, counted
from service.reports.ranking_chart import tick_label
from service.reports.svg import drawing, element

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1080.0, 400.0, 64.0, 1062.0, 30.0, 340.0
BESIDE, SPREAD = 9.0, 42.0
"""Points of one cost stand so far apart, and all of them within so much."""
BUDGETS_SHOWN = 6.0
"""Drops of more than so many budgets lie beyond the upper edge: near the budget is where the choice was made."""


@dataclass(frozen=True)
class ParetoPlot:
    """How numbers are written: drops as ``quantity``, costs as ``cost``; ``x`` and ``y`` are the axes."""

    pareto: Pareto
    quantity: Quantity
    cost: CostQuantity
    x: Axis
    y: Axis

    def draw(self) -> Markup:
        """The drawing. The axis of drops ends a few budgets up; what lies beyond is an arrow with its number."""
        samples = f"{self.pareto.samples:,} {'held-out ' if self.pareto.held_out else ''}samples"
        title = (
            f"Cost and drop of {counted(len(self.pareto.curve), 'candidate')} as predicted, and of "
            f"{counted(sum(not each.control for each in self.pareto.drawn), 'list')} as measured on {samples}; "
            "the tables hold the numbers"
        )
        placed = self._placed()
        parts = [*self._grid(), *self._budget(), self._curve()]
        parts += [self._callout(x, each) for x, each in placed if each.chosen]
        parts += [self._point(x, each) for x, each in placed]
        # labels last, so that no whisker crosses them
        parts += [self._label(x, each) for x, each in placed if each.name and not each.chosen]
        return drawing("pareto", title, *parts, width=WIDTH, height=HEIGHT)

    def _grid(self) -> list[Markup]:
        found = [element("text", self.quantity.unit, x=LEFT - 10, y=TOP - 12, class_="tick end")]
        for tick in self.y.ticks():
            y, kind = self.y.at(tick), "zero" if tick == 0 else "grid"
            found.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_=kind))
            found.append(element("text", tick_label(self.quantity, tick), x=LEFT - 10, y=y + 4, class_="tick end"))
        scaled = Quantity(factor=1 / self.cost.scale)
        for tick in self.x.ticks():
            x = self.x.at(tick)
            found.append(element("line", x1=x, x2=x, y1=BOTTOM, y2=BOTTOM + 5, class_="zero"))
            found.append(element("text", tick_label(scaled, tick), x=x, y=BOTTOM + 20, class_="tick middle"))
        middle = (LEFT + RIGHT) / 2
        return [*found, element("text", self.cost.title, x=middle, y=BOTTOM + 44, class_="tick middle")]

    def _budget(self) -> list[Markup]:
        limit = self.pareto.max_drop
        if limit is None:
            return []
        y = self.y.at(limit)
        return [
            element("rect", x=LEFT, y=TOP, width=RIGHT - LEFT, height=max(y - TOP, 0), class_="beyond"),
            element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="budget"),
            element("text", f"budget {self.quantity.with_unit(limit)}", x=RIGHT - 6, y=y - 6, class_="budget-text end"),
        ]

    def _curve(self) -> Markup:
        """Line, band and one dot per candidate; an inner drawing cuts off what lies beyond the axes."""
        known = [(each, each.predicted) for each in self.pareto.curve if each.predicted is not None]
        places = [(self.x.beyond(each.cost), drop) for each, drop in known]
        upper = [f"{x:.2f} {self.y.beyond(drop.high):.2f}" for x, drop in places]
        lower = [f"{x:.2f} {self.y.beyond(drop.low):.2f}" for x, drop in places]
        parts = [element("path", d=f"M{'L'.join([*upper, *reversed(lower)])}Z", class_="band")] if known else []
        for extrapolated in (False, True):
            path = "".join(
                self._segment(*first, *second)
                for first, second in pairwise(places)
                if (first[1].extrapolated or second[1].extrapolated) == extrapolated
            )
            parts += [element("path", d=path, class_="extrapolated" if extrapolated else "predicted")] if path else []
        parts += [self._candidate(each, drop) for each, drop in known]
        width, height = RIGHT - LEFT, BOTTOM - TOP
        box = f"{LEFT:g} {TOP:g} {width:g} {height:g}"
        return element("svg", *parts, x=LEFT, y=TOP, width=width, height=height, viewBox=box, class_="curve")

    def _segment(self, x: float, drop: PredictedDrop, next_x: float, next_drop: PredictedDrop) -> str:
        return f"M{x:.2f} {self.y.beyond(drop.value):.2f}L{next_x:.2f} {self.y.beyond(next_drop.value):.2f}"

    def _candidate(self, each: CurvePoint, drop: PredictedDrop) -> Markup:
        told = (
            f"{counted(len(each.fallback), 'fallback layer')}, {self.cost.phrase(each.cost)}: predicted "
            f"{predicted_phrase(self.quantity, drop)}, not measured"
        )
        x, y = self.x.beyond(each.cost), self.y.beyond(drop.value)
        return element("circle", element("title", told), cx=x, cy=y, r=2, class_="candidate")

    def _placed(self) -> list[tuple[float, ParetoPoint]]:
        """Each point with its place along the costs; those of one cost stand side by side."""
        together: dict[float, list[ParetoPoint]] = {}
        for each in self.pareto.drawn:
            together.setdefault(round(self.x.at(each.cost or 0.0), 1), []).append(each)
        found = []
        for x, several in together.items():
            gap = min(BESIDE, SPREAD / len(several))
            found += [(x + gap * (place - (len(several) - 1) / 2), each) for place, each in enumerate(several)]
        return found

    def _point(self, x: float, each: ParetoPoint) -> Markup:
        y, drop = self.y.at(each.drop.value or 0.0), each.drop
        kind = {True: "within", False: "over", None: "open"}[each.within_budget]
        parts = [element("title", self._told(each))]
        if drop.low is not None and drop.high is not None and drop.low < self.y.high:
            low, high = self.y.at(drop.low), self.y.at(drop.high)
            cap = f"M{x - 4:.2f} {high:.2f}h8" if drop.high <= self.y.high else ""
            path = f"M{x - 4:.2f} {low:.2f}h8{cap}M{x:.2f} {low:.2f}V{high:.2f}"
            parts.append(element("path", d=path, class_="whisker"))
        if each.chosen:
            parts.append(element("circle", cx=x, cy=y, r=10, class_="ring"))
        if self._is_beyond(each):
            parts.append(element("path", d=f"M{x - 6:.2f} {TOP + 11:.2f}h12l-6 -10z", class_="point"))
        elif each.name:
            parts.append(element("rect", x=x - 5, y=y - 5, width=10, height=10, class_="point"))
        else:
            parts.append(element("circle", cx=x, cy=y, r=5, class_="point"))
        return element("g", *parts, class_=f"step {kind}")

    def _told(self, each: ParetoPoint) -> str:
        told = f"{counted(each.fallback, 'fallback layer')}, {self.cost.phrase(each.cost)}: "
        told += "the reference" if not each.drop.samples else f"drop {self.quantity.phrase(each.drop)}"
        return told + (f", measured on {each.drop.samples:,} samples" if each.drop.samples else "")

    def _callout(self, x: float, each: ParetoPoint) -> Markup:
        """The chosen list, named above the drawing, where no other mark is; a line leads down to it."""
        told = f"chosen: {each.name or counted(each.fallback, 'layer') + ' in float'}"
        anchor = "end" if x > RIGHT - 120 else "start" if x < LEFT + 120 else "middle"
        y = self.y.at(each.drop.value or 0.0) - 11
        line = element("line", x1=x, x2=x, y1=TOP - 6, y2=max(y, TOP), class_="callout")
        return element("g", line, element("text", told, x=x, y=TOP - 12, class_=f"note {anchor}"))

    def _label(self, x: float, each: ParetoPoint) -> Markup:
        """Beside the mark, on the side where there is room."""
        y, text = self.y.at(each.drop.value or 0.0), each.name or ""
        if self._is_beyond(each):
            text += f", {self.quantity.with_unit(each.drop.value)}"
        right = x > (LEFT + RIGHT) / 2
        down = 12 if self._is_beyond(each) else -10
        return element(
            "text", text, x=x - 13 if right else x + 13, y=y + down, class_=f"note {'end' if right else 'start'}"
        )

    def _is_beyond(self, each: ParetoPoint) -> bool:
        return each.drop.value is not None and each.drop.value > self.y.high


def predicted_phrase(quantity: Quantity, drop: PredictedDrop) -> str:
    """An estimate in words, with where 95 % of such lists would be measured."""
    return f"{quantity.with_unit(drop.value)} (95\u00a0% {quantity.number(drop.low)} to {quantity.number(drop.high)})"


def plot_of(pareto: Pareto, quantity: Quantity) -> ParetoPlot:
    """The plot with axes that hold all costs, and the drops up to a few budgets."""
    costs = [each.cost for each in pareto.curve] + [each.cost for each in pareto.drawn if each.cost is not None]
    return ParetoPlot(
        pareto,
        quantity,
        CostQuantity.of(pareto.cost, max(costs)),
        span_axis(costs, LEFT, RIGHT),
        linear_axis(_drops(pareto), BOTTOM, TOP),
    )


def _drops(pareto: Pareto) -> list[float]:
    """All that the axis is to hold: measured values and the ends of their intervals, predicted values, the budget."""
    found = [each.predicted.value for each in pareto.curve if each.predicted]
    for each in pareto.drawn:
        found += [end for end in (each.drop.value, each.drop.low, each.drop.high) if end is not None]
    if not pareto.max_drop:
        return found
    chosen = [each.drop.high or 0.0 for each in pareto.drawn if each.chosen]
    most = max([BUDGETS_SHOWN * pareto.max_drop, *chosen])
    return [*(min(each, most) for each in found), pareto.max_drop]
