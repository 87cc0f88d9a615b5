"""What the layers cost, as the page shows it: totals, whole graphs as they ran, groups, and what is not known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.domain.costs import CostModel, Group, LayerCost, Precision
from service.domain.results import Interval, LayerResult
from service.reports.quantity import NO_NUMBER, Quantity, counted, scaled_count

MICROSECONDS = Quantity("µs", 1e6)
SHARE = Quantity("%", 100.0, 1)
MOST_OPERATORS = 4
REASONS = {
    "shared_input": "they read one tensor",
    "residual_add": "the addition is computed in the layer's own kernel",
    "concat": "branches of one concatenation",
    "user": "asked for",
}


@dataclass(frozen=True)
class GraphRow:
    """A whole graph. ``latency``: per sample; the others are shares of it. ``speedup`` against fp32, "" for itself."""

    precision: str
    latency: str
    interval: str
    speedup: str
    layers: str
    conversions: str
    other: str
    outside: str


@dataclass(frozen=True)
class GroupRow:
    """Layers that share one precision, by name, and why."""

    layers: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class CostSection:
    """``summary``: what is known whatever was measured. ``graphs``: empty where no latency was."""

    summary: str
    measured_on: str | None
    graphs: tuple[GraphRow, ...]
    groups: tuple[GroupRow, ...]
    notes: tuple[str, ...]


def cost_section(costs: CostModel | None, layers: Sequence[LayerResult]) -> CostSection | None:
    """The section, or None where the report has no costs. Layers are named as in ``layers``."""
    if costs is None or not costs.layers:
        return None
    names = {each.layer.id: each.layer.name for each in layers}
    where = None
    if costs.timed:
        where = f"{costs.measured_on}, {counted(costs.batch_size or 0, 'sample')} in a batch"
    return CostSection(
        summary=_summary(costs),
        measured_on=where,
        graphs=_graphs(costs),
        groups=tuple(GroupRow(_named(each, names), REASONS[each.reason]) for each in costs.groups),
        notes=costs.notes,
    )


def latency(cost: LayerCost | None, precision: Precision) -> Interval | None:
    """A layer's latency in seconds per sample, None where it was not measured."""
    return cost.latency.get(precision) if cost is not None else None


def group_names(costs: CostModel | None) -> dict[str, str]:
    """Layer (id) → the names of the groups that it is in, with a semicolon between."""
    found: dict[str, list[str]] = {}
    for each in costs.groups if costs is not None else ():
        for layer in each.layers:
            found.setdefault(layer, []).append(each.name)
    return {layer: "; ".join(names) for layer, names in found.items()}


def _named(group: Group, names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(names.get(each, each) for each in group.layers)


def _summary(costs: CostModel) -> str:
    known = [each.macs for each in costs.layers if each.macs is not None]
    unknown = len(costs.layers) - len(known)
    macs = f"{scaled_count(sum(known))} MACs per sample"
    if unknown:
        macs += f" (of {counted(unknown, 'layer')} not known)"
    weights = scaled_count(sum(each.weights for each in costs.layers))
    converted = counted(len(costs.boundaries), "tensor")
    return f"{macs} and {weights} weights; {converted} to convert where layers on both sides differ in precision"


def _graphs(costs: CostModel) -> tuple[GraphRow, ...]:
    base = next((each.wall.value for each in costs.timed if each.precision is Precision.FP32), None)
    rows = []
    for each in costs.timed:
        value, told = each.wall.value, each.precision is Precision.FP32
        speedup = f"{base / value:.2f}×" if base and value and not told else ""
        operators = [f"{name} {SHARE.with_unit(share)}" for name, share in list(each.other.items())[:MOST_OPERATORS]]
        rows.append(
            GraphRow(
                precision=each.precision.value,
                latency=MICROSECONDS.with_unit(value),
                interval=MICROSECONDS.range(each.wall),
                speedup=speedup,
                layers=SHARE.with_unit(each.layers),
                conversions=SHARE.with_unit(each.conversions),
                other=f"{SHARE.with_unit(sum(each.other.values()))} ({', '.join(operators)})"
                if operators
                else NO_NUMBER,
                outside=SHARE.with_unit(each.outside),
            )
        )
    return tuple(rows)
