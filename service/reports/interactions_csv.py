"""What layers do together, as CSV (RFC 4180): estimates of probes, a row for each pair that is not all noise."""

import csv
import io
from collections.abc import Mapping, Sequence

from service.domain.results import Interaction
from service.reports.layers_csv import safe

COLUMNS = ("measure", "layer", "other_layer", "value", "standard_error", "shrunk")


def to_csv(interactions: Sequence[Interaction], names: Mapping[str, str]) -> str:
    """In the order given. ``names``: layer id → name."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for each in interactions:
        pair = [safe(names[layer]) for layer in each.layers]
        writer.writerow([each.measure, *pair, each.value, each.standard_error, each.shrunk])
    return buffer.getvalue()
