"""Numbers as the page writes them: the metric's unit, few digits, a true minus sign."""

from dataclasses import dataclass
from typing import Self

from service.domain.results import Interval
from service.reports.report import MetricSection

NO_NUMBER = "–"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SHARE = "share of samples"
# the longer units are told once, beside the metric's name, not at every number
SHORT_UNITS = {"dB": "dB", "nats": "nats"}


@dataclass(frozen=True)
class Quantity:
    """How one kind of number is written. ``factor`` takes it to ``unit``; ``decimals`` None: 3 significant digits."""

    unit: str = ""
    factor: float = 1.0
    decimals: int | None = None

    @classmethod
    def level(cls, metric: MetricSection) -> Self:
        """Of the metric's own values."""
        return cls("%", 100.0, 2) if metric.unit == SHARE else cls(SHORT_UNITS.get(metric.unit, ""))

    @classmethod
    def drop(cls, metric: MetricSection) -> Self:
        """Of differences of the metric: percentage points where it is a share."""
        return cls("pp", 100.0, 2) if metric.unit == SHARE else cls(SHORT_UNITS.get(metric.unit, ""))

    def number(self, value: float | None) -> str:
        """Without the unit."""
        if value is None:
            return NO_NUMBER
        scaled = value * self.factor
        if self.decimals is not None and (scaled == 0 or abs(scaled) >= 0.5 * 10**-self.decimals):
            return f"{scaled:.{self.decimals}f}".replace("-", "−")
        return significant(scaled)

    def with_unit(self, value: float | None) -> str:
        """With the unit, where it has one."""
        text = self.number(value)
        if value is None or not self.unit:
            return text
        return f"{text}\u00a0{self.unit}"

    def range(self, found: Interval | None) -> str:
        """The 95 % interval, without the unit."""
        if found is None or found.low is None or found.high is None:
            return NO_NUMBER
        return f"{self.number(found.low)} to {self.number(found.high)}"

    def brief(self, found: Interval) -> str:
        """The value with its unit, and the interval in brackets without a word."""
        return f"{self.with_unit(found.value)} ({self.range(found)})"

    def phrase(self, found: Interval) -> str:
        """For a sentence: the value with its unit, and the interval in brackets."""
        if found.value is None:
            return f"an undefined number ({found.method})"
        if found.low is None or found.high is None:
            return self.with_unit(found.value)
        return f"{self.with_unit(found.value)} (95\u00a0% CI {self.range(found)})"


def significant(value: float, digits: int = 3) -> str:
    """A number to so many significant digits; ten's powers below 0.001 and from a million up."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        places = max(0, digits - 1 - _magnitude(value))
        return f"{value:.{places}f}".replace("-", "−")
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}×10".replace("-", "−") + str(int(exponent)).translate(SUPERSCRIPTS)


def _magnitude(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def worsening(metric: MetricSection) -> str:
    """What a positive drop is called: a metric that should be low does not drop when it worsens."""
    return "drop" if metric.higher_is_better else "increase"


def counted(count: int, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def scaled_count(count: int | None, unit: str = "") -> str:
    """A count in thousands (k), millions (M) or billions (G)."""
    if count is None:
        return NO_NUMBER
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{significant(count / factor)}\u00a0{prefix}{unit}"
    return f"{count}\u00a0{unit}" if unit else str(count)
