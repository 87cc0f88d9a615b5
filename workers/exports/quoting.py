"""Names from a model as text in somebody else's file: nothing in a name ends a comment, a string or a command."""

import json
from collections.abc import Iterable, Sequence
from string import Template


def comments(lines: Iterable[str]) -> str:
    """Each as a comment of Python and of the shell; none holds a line break."""
    return "".join(f"# {line}\n" if line else "#\n" for line in lines)


def shown(name: str) -> str:
    """A name inside a comment: in double quotes, all but printable ASCII escaped."""
    return json.dumps(name)


def listed(names: Sequence[str]) -> str:
    """Names as a Python list, one to a line, in ASCII."""
    return "[\n" + "".join(f"    {name!a},\n" for name in names) + "]" if names else "[]"


def filled(template: str, **parts: str) -> bytes:
    """The template with its ``$parts`` replaced, once: a ``$`` in a name stays what it is."""
    return Template(template).substitute(parts).encode()
