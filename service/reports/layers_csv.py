"""The layer table as CSV (RFC 4180), safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Sequence

from service.domain.results import Interval, LayerResult

FIXED = ("rank", "name", "id", "op", "state", "significant", "reason", "output_shape", "macs", "weight_bytes", "amax")
# a cell that begins like this would be run as a formula
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_csv(layers: Sequence[LayerResult]) -> str:
    """One row per layer in the order given: the metric, the drop, then every measure, each with its interval."""
    measures = list(dict.fromkeys(name for each in layers if each.score for name in each.score.measures))
    numbers = ["metric", "drop", *measures]
    columns = [f"{name}{suffix}" for name in numbers for suffix in ("", "_low", "_high")]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([*FIXED, *columns, "drop_p_value", "samples"])
    for each in layers:
        writer.writerow([*_fixed(each), *_numbers(each, measures)])
    return buffer.getvalue()


def _fixed(each: LayerResult) -> list[object]:
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
        " ".join(f"{value!r}" for value in each.amax.values()),
    ]


def _numbers(each: LayerResult, measures: Sequence[str]) -> list[object]:
    score = each.score
    if score is None:
        return [None] * (3 * (2 + len(measures)) + 2)
    found: list[Interval | None] = [score.metric, score.drop, *(score.measures.get(name) for name in measures)]
    cells: list[object] = []
    for interval in found:
        cells += [interval.value, interval.low, interval.high] if interval else [None, None, None]
    return [*cells, score.drop.p_value, score.drop.samples]


def safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula; control characters are made visible."""
    visible = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return f"'{visible}" if visible.startswith(FORMULA_STARTS) else visible
