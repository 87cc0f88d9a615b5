"""How a caller names layers: shell globs over ids and names."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from service.domain.errors import InvalidInput


def matches(pattern: str, layer_id: str, name: str) -> bool:
    """Whether the whole id or the whole name fits the glob, case and all."""
    return fnmatchcase(layer_id, pattern) or fnmatchcase(name, pattern)


def matched(pattern: str, names: Mapping[str, str], *, field: str) -> tuple[str, ...]:
    """The ids that fit, of layer id → name in their order; raises InvalidInput for ``field`` where none does."""
    found = tuple(layer for layer, name in names.items() if matches(pattern, layer, name))
    if not found:
        near = ", ".join(list(names.values())[:5])
        message = f"{field}: the pattern {pattern!r} matches no layer of the table; layers are named like {near}"
        raise InvalidInput(message, field=field, code="pattern-matches-nothing")
    return found
