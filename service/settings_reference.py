"""The reference of all settings, as Markdown: ``python -m service.settings_reference > docs/settings.md``."""

from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from service.settings import Settings

HEAD = """# Settings

Read once at start-up from the environment of the API and of each worker. Sizes are in bytes, times in seconds.
This page is made from the code: `make settings`. How they go together: [deploy.md](deploy.md).

| variable | value | default | what it is |
|---|---|---|---|
"""
BOUNDS: dict[type, str] = {Ge: "at least {0.ge}", Gt: "above {0.gt}", Le: "at most {0.le}"}
NAMES = {"SecretStr": "secret", "Path": "path", "tuple": "paths, separated as in PATH", "bool": "true, false"}


def settings_reference() -> str:
    """The page, with a row for each setting in the order of the code."""
    return HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`QUANTSIEVE_{name.upper()}`", _value(field), _default(field), field.description or "")
    return f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |\n"


def _value(field: FieldInfo) -> str:
    kinds, limits = _kinds(field.annotation)
    for each in (*limits, *field.metadata):
        if type(each) in BOUNDS:
            kinds.append(BOUNDS[type(each)].format(each))
        if isinstance(each, MinLen):
            kinds.append(f"{each.min_length} characters or more")
    return ", ".join(kinds)


def _kinds(annotation: Any) -> tuple[list[str], list[Any]]:
    """The names of what it takes, and the limits that stand inside the type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [f"`{each}`" for each in arguments], []
    if origin in (Union, UnionType):
        found = [_kinds(each) for each in arguments if each is not NoneType]
        return [name for names, _ in found for name in names], [each for _, limits in found for each in limits]
    if metadata := getattr(annotation, "__metadata__", ()):
        names, limits = _kinds(arguments[0])
        return names, [*limits, *(part for each in metadata for part in getattr(each, "metadata", (each,)))]
    name = (origin or annotation).__name__
    return [NAMES.get(name, name)], []


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None or field.default is PydanticUndefined:
        return "`~/.local/share/quantsieve`"
    if field.default is None or field.default == ():
        return ""
    return f"`{field.default}`"


if __name__ == "__main__":
    print(settings_reference(), end="")
