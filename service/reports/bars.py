"""Where the bars of the sensitivity chart stand: layers ranked, drops with their intervals, in pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.domain.results import LayerResult

MOST_BARS = 40
WIDTH = 520.0
ROW = 22


@dataclass(frozen=True)
class Bar:
    """One layer's bar; x positions in pixels from the left edge of the plot."""

    label: str
    top: int
    zero: float
    end: float
    low: float | None
    high: float | None
    value: str
    kind: str  # "fallback", "significant" or "noise"

    @property
    def left(self) -> float:
        """Left edge of the bar."""
        return min(self.zero, self.end)

    @property
    def length(self) -> float:
        """Length of the bar."""
        return max(abs(self.end - self.zero), 0.5)


@dataclass(frozen=True)
class Chart:
    """The chart: bars, ticks as (x, label), its height, and how many layers it leaves out."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    width: float
    height: int
    zero: float
    left_out: int


def chart(layers: Sequence[LayerResult], fallback: frozenset[str]) -> Chart:
    """The most sensitive layers first, at most 40."""
    ranked = sorted((each for each in layers if each.score and each.rank), key=lambda each: each.rank or 0)
    shown = [each for each in ranked[:MOST_BARS] if each.score and each.score.drop.value is not None]
    ends = [0.0]
    for each in shown:
        assert each.score is not None
        drop = each.score.drop
        ends += [value for value in (drop.value, drop.low, drop.high) if value is not None]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round((value - low) / span * WIDTH, 1)

    bars = tuple(_bar(each, index, x, fallback) for index, each in enumerate(shown))
    ticks = tuple((x(value), f"{value:.3g}") for value in _ticks(low, high))
    return Chart(bars, ticks, WIDTH, ROW * len(bars), x(0.0), len(ranked) - len(shown))


def _bar(each: LayerResult, index: int, x: Callable[[float], float], fallback: frozenset[str]) -> Bar:
    assert each.score is not None
    drop = each.score.drop
    assert drop.value is not None
    kind = "fallback" if each.layer.id in fallback else "significant" if each.significant else "noise"
    return Bar(
        label=each.layer.name,
        top=index * ROW,
        zero=x(0.0),
        end=x(drop.value),
        low=x(drop.low) if drop.low is not None else None,
        high=x(drop.high) if drop.high is not None else None,
        value=f"{drop.value:+.4g}",
        kind=kind,
    )


def _ticks(low: float, high: float) -> list[float]:
    if high <= low:
        return [0.0]
    raw = (high - low) / 5
    power = 10.0 ** _floor_log10(raw)
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = int(low / step) - 1
    values = [round(index * step, 12) for index in range(first, first + 12)]
    return [value for value in values if low <= value <= high]


def _floor_log10(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])
