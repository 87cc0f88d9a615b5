"""One range for each quantized tensor, from the ranges of its edges; what that changes is part of the result."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from workers.exports.placement import Reader, Step, same_scale_groups


@dataclass(frozen=True)
class QuantizedEdge:
    """A read that sees int8. ``id``: the activation edge; ``step``: the operation that reads ``tensor``."""

    id: str
    step: str
    tensor: str
    amax: float


@dataclass(frozen=True)
class Rescaled:
    """An edge whose range was changed, to have one scale with ``shared_with`` (other tensors, or itself elsewhere)."""

    edge: str
    tensor: str
    amax: float
    before: float
    shared_with: tuple[str, ...]


@dataclass(frozen=True)
class ScalePlan:
    """``amax``: quantized tensor → range."""

    amax: Mapping[str, float]
    rescaled: tuple[Rescaled, ...]


def plan_scales(
    steps: Sequence[Step], edges: Sequence[QuantizedEdge], given_out: Collection[str], *, unify: bool
) -> ScalePlan:
    """The largest range of each group of tensors that need one scale; without ``unify``, of each tensor for itself."""
    groups: list[frozenset[str]] = []
    if unify:
        groups = same_scale_groups(steps, [Reader(each.step, each.tensor) for each in edges], given_out)
    group_of = {tensor: group for group in groups for tensor in group}
    largest: dict[frozenset[str], float] = {}
    for edge in edges:
        group = group_of.get(edge.tensor, frozenset({edge.tensor}))
        largest[group] = max(largest.get(group, 0.0), edge.amax)
    amax = {each.tensor: largest[group_of.get(each.tensor, frozenset({each.tensor}))] for each in edges}
    rescaled = tuple(
        Rescaled(each.id, each.tensor, amax[each.tensor], each.amax, _others(group_of, amax, each.tensor))
        for each in edges
        if amax[each.tensor] != each.amax
    )
    return ScalePlan(amax, rescaled)


def _others(group_of: Mapping[str, frozenset[str]], amax: Mapping[str, float], tensor: str) -> tuple[str, ...]:
    quantized = {each for each in group_of.get(tensor, frozenset()) if each in amax and each != tensor}
    return tuple(sorted(quantized)) or (tensor,)
