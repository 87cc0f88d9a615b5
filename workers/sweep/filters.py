"""Which layers take part: include and exclude patterns over ids and names."""

from collections.abc import Sequence

from service.domain.errors import SweepFailure
from service.domain.layers import Layer
from service.selection.patterns import matches


def excluded_layers(layers: Sequence[Layer], include: Sequence[str], exclude: Sequence[str]) -> dict[str, str]:
    """Layer id → why it is left out. Raises SweepFailure for a pattern that matches no layer, or where none is left.

    A pattern is a shell glob matched against the whole id or the whole name, case and all.
    """
    for field, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not any(matches(pattern, layer.id, layer.name) for layer in layers):
                near = ", ".join(layer.name for layer in layers[:5])
                raise SweepFailure(
                    f"{field}: the pattern {pattern!r} matches no layer; layers are named like {near}",
                    code="pattern-matches-nothing",
                )
    reasons: dict[str, str] = {}
    for layer in layers:
        if include and not any(matches(pattern, layer.id, layer.name) for pattern in include):
            reasons[layer.id] = "not matched by include"
        for pattern in exclude:
            if matches(pattern, layer.id, layer.name):
                reasons[layer.id] = f"excluded by {pattern!r}"
    if len(reasons) == len(layers):
        raise SweepFailure("include and exclude leave no layer to measure", code="no-layers")
    return reasons
