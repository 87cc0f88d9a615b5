"""From numbers to places on a drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.results import Interval

# the measures that spread over powers of ten; others stay linear whatever their range
LOGARITHMIC = ("mse", "kl")
LOG_FROM = 100.0


@dataclass(frozen=True)
class Axis:
    """``low`` and ``high`` in the data's unit lie at ``start`` and ``stop`` on the drawing."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    @property
    def has_zero(self) -> bool:
        """Whether lengths from zero can be drawn: bars are honest only then."""
        return not self.log and self.low <= 0 <= self.high

    def at(self, value: float) -> float:
        """Where a value lies; what is beyond an end lies at that end."""
        return self.beyond(min(max(value, self.low), self.high))

    def beyond(self, value: float) -> float:
        """Where a value lies, outside of the drawing too; positive where the axis is logarithmic."""
        if self.log:
            part = (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.stop - self.start)

    def ticks(self) -> tuple[float, ...]:
        """Round values along the axis, about five."""
        if self.log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            every = max(1, math.ceil((last - first) / 6))
            return tuple(10.0**power for power in range(first, last + 1, every))
        step = _round_step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        return tuple(place * step for place in range(first, math.floor(self.high / step + 1e-9) + 1))


def axis_of(found: Sequence[Interval], *, measure: str, start: float, stop: float, also: Sequence[float] = ()) -> Axis:
    """The axis that holds these intervals and the values ``also``.

    Logarithmic where the measure spreads over powers of ten and its positive values do, by more than a hundred times;
    else linear, from zero unless every value is negative (SQNR).
    """
    values = [each.value for each in found if each.value is not None] + list(also)
    positive = [value for value in values if value > 0]
    spread = max(positive) / min(positive) if positive else 1.0
    ends = [end for each in found if each.value is not None for end in (each.low, each.high) if end is not None]
    if measure in LOGARITHMIC and spread > LOG_FROM and min(values) >= 0:
        highest = max([*positive, *ends])
        return Axis(
            10.0 ** math.floor(math.log10(min(positive))), 10.0 ** math.ceil(math.log10(highest)), start, stop, log=True
        )
    return linear_axis([*values, *ends], start, stop)


def linear_axis(values: Sequence[float], start: float, stop: float) -> Axis:
    """The linear axis that holds these values and zero, unless all are negative."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if high >= 0:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        high = low + 1.0
    margin = 0.03 * (high - low)
    return Axis(low - margin if low < 0 else low, high + margin if high != 0 else high, start, stop)


def span_axis(values: Sequence[float], start: float, stop: float) -> Axis:
    """The linear axis from the smallest to the largest of these values, wherever zero is; for points, not for bars."""
    low, high = min(values), max(values)
    margin = 0.04 * (high - low) or 0.5 * abs(low) or 1.0
    return Axis(low - margin, high + margin, start, stop)


def _round_step(span: float) -> float:
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
