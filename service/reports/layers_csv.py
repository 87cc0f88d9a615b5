"""The layer table as CSV (RFC 4180), safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Sequence

from service.domain.costs import CostModel, LayerCost, Precision
from service.domain.results import Interval, LayerResult
from service.reports.cost_section import group_names, latency

DESCRIPTION = ("rank", "name", "id", "op", "state", "significant", "reason", "output_shape", "macs", "weight_bytes")
STATISTICS = ("amax", "activation_low", "activation_high", "weight_ratio", "sqnr_db")
PRECISIONS = (Precision.INT8, Precision.FP16, Precision.FP32)
ENDS = ("", "_low", "_high")
# a cell that begins like this would be run as a formula
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_csv(layers: Sequence[LayerResult], costs: CostModel | None = None) -> str:
    """One row per layer in the order given: the metric, the drop, then every measure, each with its interval.

    Latencies are in seconds per sample, each with its interval; ``group``: with which other layers it shares its
    precision. Both are empty where ``costs`` do not tell. Estimates of probes follow, in columns of their own.
    """
    cost_of = {each.layer: each for each in costs.layers} if costs is not None else {}
    groups = group_names(costs)
    measures = list(dict.fromkeys(name for each in layers if each.score for name in each.score.measures))
    estimated = list(dict.fromkeys(name for each in layers if each.estimate for name in each.estimate.measures))
    numbers = ["metric", "drop", *measures]
    columns = [f"{name}{suffix}" for name in numbers for suffix in ENDS]
    estimates = [f"estimated_{name}{suffix}" for name in estimated for suffix in ENDS]
    estimates += ["beyond_linear"] if estimated else []
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    latencies = [f"latency_{each}{suffix}" for each in PRECISIONS for suffix in ENDS]
    writer.writerow([*DESCRIPTION, *STATISTICS, *columns, "drop_p_value", "samples", *latencies, "group", *estimates])
    for each in layers:
        told = [*_description(each), *_statistics(each), *_numbers(each, measures)]
        told += [*_latencies(cost_of.get(each.layer.id)), safe(groups.get(each.layer.id, ""))]
        writer.writerow([*told, *(_estimates(each, estimated) if estimated else [])])
    return buffer.getvalue()


def _description(each: LayerResult) -> list[object]:
    layer = each.layer
    return [
        each.rank,
        safe(layer.name),
        safe(layer.id),
        layer.op.value,
        each.state,
        each.significant,
        safe(each.reason or ""),
        "x".join(str(size) for size in layer.output_shape or ()),
        layer.macs,
        layer.weight_bytes,
    ]


def _statistics(each: LayerResult) -> list[object]:
    """Of an edge each number stands beside those of the layer's other edges, with a space between."""
    found = each.statistics
    extents = found.activations.values() if found else []
    return [
        _spaced(each.amax.values()),
        _spaced(extent.low for extent in extents),
        _spaced(extent.high for extent in extents),
        found.weight_ratio if found else None,
        found.sqnr_db if found else None,
    ]


def _spaced(values: Iterable[float]) -> str:
    return " ".join(f"{value!r}" for value in values)


def _numbers(each: LayerResult, measures: Sequence[str]) -> list[object]:
    score = each.score
    if score is None:
        return [None] * (3 * (2 + len(measures)) + 2)
    found = [score.metric, score.drop, *(score.measures.get(name) for name in measures)]
    return [*_intervals(found), score.drop.p_value, score.drop.samples]


def _latencies(cost: LayerCost | None) -> list[object]:
    return _intervals(latency(cost, each) for each in PRECISIONS)


def _estimates(each: LayerResult, measures: Sequence[str]) -> list[object]:
    estimate = each.estimate
    found = [estimate.measures.get(name) if estimate else None for name in measures]
    return [*_intervals(found), estimate.beyond_linear if estimate else None]


def _intervals(found: Iterable[Interval | None]) -> list[object]:
    cells: list[object] = []
    for interval in found:
        cells += [interval.value, interval.low, interval.high] if interval else [None, None, None]
    return cells


def safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula; control characters are made visible."""
    visible = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return f"'{visible}" if visible.startswith(FORMULA_STARTS) else visible
