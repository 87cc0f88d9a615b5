"""The layer table as the page shows it: most sensitive first, every cell with the value that it is sorted by."""

from dataclasses import dataclass

from service.domain.costs import LayerCost, Precision
from service.domain.results import Interval, LayerResult, LayerStatistics
from service.reports.cost_section import MICROSECONDS, latency
from service.reports.quantity import NO_NUMBER, Quantity, scaled_count, significant
from service.reports.report import Report
from service.selection.ranking import CONTINUOUS

MEASURE_TITLES = {"kl": "KL", "mse": "MSE"}


@dataclass(frozen=True)
class Cell:
    """A number as it is read, and as it is sorted (None: last)."""

    text: str
    key: float | None = None


@dataclass(frozen=True)
class LayerRow:
    """One row. ``precision`` is where the layer ends up; ``flags`` are the words that the page's filter knows.

    ``latency``: precision → microseconds per sample.
    """

    result: LayerResult
    precision: str
    flags: tuple[str, ...]
    drop: Cell
    interval: str
    p_value: Cell
    divergence: Cell
    macs: Cell
    weights: Cell
    latency: dict[str, Cell]
    shape: str
    statistics: str


def layer_rows(report: Report) -> tuple[LayerRow, ...]:
    """All layers by rank; those without one follow in topological order."""
    ranked = sorted(report.layers, key=lambda each: (each.rank is None, each.rank or 0))
    costs = {each.layer: each for each in report.costs.layers} if report.costs else {}
    return tuple(_row(report, each, costs.get(each.layer.id)) for each in ranked)


def divergence_measure(report: Report) -> str | None:
    """The continuous measure that orders what the metric cannot tell apart; None where the metric is that itself."""
    scored = [each for each in report.layers if each.score or each.estimate]
    known = {name for each in scored for name in CONTINUOUS if measured_or_estimated(each, name) is not None}
    found = next((name for name in CONTINUOUS if name in known), None)
    if any(each.estimate for each in scored):  # an estimate stands in no other column
        return report.metric.name if report.metric.name in known else found
    return None if found == report.metric.name else found


def measured_or_estimated(result: LayerResult, measure: str) -> Interval | None:
    """A continuous measure of the layer: as measured where it was, else as probes estimate it."""
    found = result.score or result.estimate
    return found.measures.get(measure) if found else None


def _row(report: Report, result: LayerResult, cost: LayerCost | None) -> LayerRow:
    score, layer = result.score, result.layer
    drop = score.drop if score else None
    measure = divergence_measure(report)
    quantity = Quantity.drop(report.metric)
    precision = _precision(report, result)
    return LayerRow(
        result=result,
        precision=precision,
        flags=_flags(result, precision),
        drop=_cell(quantity, drop),
        interval=quantity.range(drop),
        p_value=_p_value(drop),
        divergence=_cell(Quantity(), measured_or_estimated(result, measure)) if measure else Cell(NO_NUMBER),
        macs=Cell(scaled_count(layer.macs), layer.macs),
        weights=Cell(scaled_count(layer.weight_bytes or None, "B"), layer.weight_bytes),
        latency={each.value: _latency(cost, each) for each in Precision},
        shape="×".join(str(size) for size in layer.output_shape or ()) or NO_NUMBER,
        statistics=_statistics(result.statistics),
    )


def _latency(cost: LayerCost | None, precision: Precision) -> Cell:
    found = latency(cost, precision)
    return Cell(MICROSECONDS.number(found.value if found else None), found.value if found else None)


def _statistics(found: LayerStatistics | None) -> str:
    """What calibration tells, in words; "" where it was not kept."""
    if found is None:
        return ""
    number = Quantity().number
    parts = [f"input {number(each.low)} to {number(each.high)}" for each in found.activations.values()]
    if found.weight_ratio is not None:
        parts.append(f"weights max/mean {number(found.weight_ratio)}")
    if found.sqnr_db is not None:
        parts.append(f"local SQNR {number(found.sqnr_db)} dB")
    return " · ".join(parts)


def _precision(report: Report, result: LayerResult) -> str:
    if result.state in ("failed", "excluded"):
        return "float"
    if report.decision is None or result.state == "pending":
        return ""
    return "float" if result.layer.id in report.decision.fallback else "int8"


def _flags(result: LayerResult, precision: str) -> tuple[str, ...]:
    found = [result.state, *([precision] if precision else [])]
    if precision == "float" and result.scored:
        found.append("fallback")
    if result.significant:
        found.append("significant")
    return tuple(found)


def _cell(quantity: Quantity, found: Interval | None) -> Cell:
    return Cell(quantity.number(found.value if found else None), found.value if found else None)


def _p_value(found: Interval | None) -> Cell:
    p = found.p_value if found else None
    if p is None:
        return Cell(NO_NUMBER)
    return Cell("< 0.0001" if p < 1e-4 else significant(p, 2), p)
