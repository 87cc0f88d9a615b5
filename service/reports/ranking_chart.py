"""The ranked layers as horizontal bars with 95 % intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from service.domain.results import Interval
from service.reports.axis import Axis, axis_of
from service.reports.quantity import SUPERSCRIPTS, Quantity
from service.reports.svg import drawing, element
from service.reports.visible_text import shortened, visible

WIDTH, ROW, TOP, BOTTOM = 1080.0, 26.0, 34.0, 10.0
RANK_RIGHT, LABEL_LEFT, LABEL_CHARACTERS, MARK_LEFT = 30.0, 42.0, 34, 312.0
PLOT_LEFT, PLOT_RIGHT, VALUE_RIGHT, RANGE_RIGHT = 352.0, 812.0, 890.0, WIDTH - 2


@dataclass(frozen=True)
class Bar:
    """One layer: ``significant`` beyond noise, ``fallback`` kept in floating point by the decision."""

    rank: int | None
    label: str
    found: Interval
    significant: bool
    fallback: bool


@dataclass(frozen=True)
class BarChart:
    """What the bars show: ``measure`` by its name, numbers written as ``quantity``, ``name`` the drawing's id."""

    name: str
    title: str
    measure: str
    quantity: Quantity

    def draw(self, bars: Sequence[Bar]) -> Markup:
        """The drawing; rows in the order given. Where lengths from zero make no sense, dots stand for bars."""
        axis = axis_of([bar.found for bar in bars], measure=self.measure, start=PLOT_LEFT, stop=PLOT_RIGHT)
        height = TOP + ROW * len(bars) + BOTTOM
        rows = [self._row(bar, axis, TOP + ROW * index) for index, bar in enumerate(bars)]
        return drawing(self.name, self.title, *self._grid(axis, height), *rows, width=WIDTH, height=height)

    def _grid(self, axis: Axis, height: float) -> list[Markup]:
        found = []
        for tick in axis.ticks():
            x = axis.at(tick)
            kind = "zero" if tick == 0 and axis.has_zero else "grid"
            found.append(element("line", x1=x, x2=x, y1=TOP - 6, y2=height - BOTTOM, class_=kind))
            found.append(
                element("text", tick_label(self.quantity, tick, log=axis.log), x=x, y=TOP - 14, class_="tick middle")
            )
        headed = f"95 % interval{f', {self.quantity.unit}' if self.quantity.unit else ''}"
        found.append(element("text", headed, x=RANGE_RIGHT, y=TOP - 14, class_="tick end"))
        return found

    def _row(self, bar: Bar, axis: Axis, top: float) -> Markup:
        middle = top + ROW / 2
        base = middle + 4.5
        name = visible(bar.label)
        told = f"{name}: {self.quantity.with_unit(bar.found.value)}, 95 % interval {self.quantity.range(bar.found)}"
        parts = [
            element("title", told + (", stays in floating point" if bar.fallback else "")),
            element("rect", x=0, y=top, width=WIDTH, height=ROW, class_="row", rx=4),
            element("text", str(bar.rank or ""), x=RANK_RIGHT, y=base, class_="rank end"),
            element("text", shortened(name, LABEL_CHARACTERS), x=LABEL_LEFT, y=base, class_="label"),
            element("text", self.quantity.number(bar.found.value), x=VALUE_RIGHT, y=base, class_="value end"),
            element("text", self.quantity.range(bar.found), x=RANGE_RIGHT, y=base, class_="range end"),
        ]
        if bar.fallback:
            parts.append(element("rect", x=MARK_LEFT, y=middle - 8, width=26, height=16, rx=8, class_="mark"))
            parts.append(element("text", "FP", x=MARK_LEFT + 13, y=middle + 3.8, class_="mark-text middle"))
        kind = "significant" if bar.significant else "noise"
        return element("g", *parts, *_length(bar.found, axis, middle), class_=f"bar {kind}")


def tick_label(quantity: Quantity, tick: float, *, log: bool = False) -> str:
    """A round number, as short as it can be written; powers of ten on a logarithmic axis."""
    if log:
        return f"10{str(round(math.log10(tick))).translate(SUPERSCRIPTS)}"
    text = f"{tick * quantity.factor:.6g}"
    return quantity.number(tick) if "e" in text else text.replace("-", "−")


def _length(found: Interval, axis: Axis, middle: float) -> list[Markup]:
    if found.value is None:
        return []
    x, parts = axis.at(found.value), []
    if axis.has_zero:
        zero = axis.at(0)
        left, width = min(x, zero), max(abs(x - zero), 1.5)
        parts.append(element("rect", x=left, y=middle - 7, width=width, height=14, rx=2.5, class_="length"))
    if found.low is not None and found.high is not None:
        low, high = axis.at(found.low), axis.at(found.high)
        ends = f"M{low:.2f} {middle - 4:.2f}v8M{high:.2f} {middle - 4:.2f}v8M{low:.2f} {middle:.2f}H{high:.2f}"
        parts.append(element("path", d=ends, class_="whisker"))
    if not axis.has_zero:
        parts.append(element("circle", cx=x, cy=middle, r=5, class_="length"))
    return parts
