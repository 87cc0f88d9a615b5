"""Which layers decide together, and which are decided already: groups merged where they overlap, and pins."""

from collections.abc import Iterable, Mapping, Sequence

from service.domain.costs import Group
from service.domain.errors import InvalidInput
from service.domain.layers import Frozen
from service.selection.patterns import matched

ALWAYS_INT8 = "selection.always_int8"
NEVER_INT8 = "selection.never_int8"
GROUPS = "selection.groups"


class MergedGroup(Frozen):
    """Layers (ids, in the order of the model) with one precision; most layers are one by themselves.

    ``because``: the names of the groups that overlap in it. ``floating``: True and False where the caller decided
    already (``never_int8`` and ``always_int8``), None where it is open.
    """

    layers: tuple[str, ...]
    because: tuple[str, ...] = ()
    floating: bool | None = None


class Pins(Frozen):
    """What the caller decided for layers: patterns over ids and names."""

    always_int8: tuple[str, ...] = ()
    never_int8: tuple[str, ...] = ()


NO_PINS = Pins()


def user_groups(patterns: Sequence[Sequence[str]], names: Mapping[str, str]) -> tuple[Group, ...]:
    """One group for each list of patterns, of all layers (id → name) that one of them fits."""
    found = []
    for several in patterns:
        inside = {layer for pattern in several for layer in matched(pattern, names, field=GROUPS)}
        ordered = tuple(layer for layer in names if layer in inside)
        found.append(Group(name=", ".join(several), layers=ordered, reason="user"))
    return tuple(found)


def merged_groups(names: Mapping[str, str], groups: Iterable[Group], pins: Pins = NO_PINS) -> tuple[MergedGroup, ...]:
    """Every layer (id → name, in the order of the model) once, in the order of each group's first layer.

    Layers of ``groups`` that are not in ``names`` (excluded, failed) are left out. Raises InvalidInput where a pin
    matches no layer, or where a layer, or layers of one group, are pinned both ways; it names both patterns.
    """
    members = _components(names, groups)
    always = _pinned(names, pins.always_int8, ALWAYS_INT8)
    never = _pinned(names, pins.never_int8, NEVER_INT8)
    return tuple(
        MergedGroup(layers=layers, because=because, floating=_decided(layers, because, names, (always, never)))
        for layers, because in members
    )


def _components(names: Mapping[str, str], groups: Iterable[Group]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Connected components of "they share a group": their layers, and the names of the groups."""
    leader = {layer: layer for layer in names}

    def first(layer: str) -> str:
        while leader[layer] != layer:
            layer = leader[layer]
        return layer

    inside = [(group.name, [each for each in group.layers if each in names]) for group in groups]
    inside = [(name, layers) for name, layers in inside if len(layers) > 1]
    for _, layers in inside:
        for each in layers[1:]:
            leader[first(each)] = first(layers[0])
    members: dict[str, list[str]] = {}
    for layer in names:
        members.setdefault(first(layer), []).append(layer)
    why: dict[str, list[str]] = {}
    for name, layers in inside:
        why.setdefault(first(layers[0]), []).append(name)
    return [(tuple(layers), tuple(why.get(each, ()))) for each, layers in members.items()]


def _pinned(names: Mapping[str, str], patterns: Iterable[str], field: str) -> dict[str, str]:
    """Layer → the pattern that pins it."""
    found: dict[str, str] = {}
    for pattern in patterns:
        found = dict.fromkeys(matched(pattern, names, field=field), pattern) | found
    return found


def _decided(
    layers: Sequence[str],
    because: Sequence[str],
    names: Mapping[str, str],
    pinned: tuple[Mapping[str, str], Mapping[str, str]],
) -> bool | None:
    always, never = ([(each, side[each]) for each in layers if each in side] for side in pinned)
    if always and never:
        (one, asked), (other, refused) = always[0], never[0]
        message = (
            f"{ALWAYS_INT8} {asked!r} puts {names[one]} in int8, {NEVER_INT8} {refused!r} keeps {names[other]} out"
        )
        if one != other:
            message += f", and the two share a precision ({'; '.join(because)})"
        raise InvalidInput(f"{message}; drop one of the two", field=ALWAYS_INT8, code="pins-contradict")
    if not always and not never:
        return None
    return bool(never)
