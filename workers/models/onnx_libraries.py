"""The custom-op libraries of an installation, as sessions of ONNX Runtime are given them.

Which there are is a setting of the worker's: neither a model nor a job can name one.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.domain.errors import first_line

SETTING = "QUANTSIEVE_CUSTOM_OP_LIBRARIES"
READ_BYTES = 2**20


@dataclass(frozen=True)
class Broken:
    """A library that cannot be used, by its file's name, and why."""

    name: str
    reason: str


def register(options: Any, libraries: Iterable[Path]) -> tuple[Broken, ...]:
    """Give the libraries to a session's options. Those that do not load are left out, and told with the reason."""
    broken = []
    for path in libraries:
        try:
            options.register_custom_ops_library(str(path))
        except Exception as error:  # the runtime raises classes of its own
            reason = first_line(error, most=2000).replace(
                str(path), path.name
            )  # a job's owner is shown no path of this machine
            broken.append(Broken(path.name, reason))
    return tuple(broken)


def contents(libraries: Iterable[Path]) -> Mapping[str, str]:
    """SHA-256 (hexadecimal) → file name, of those that can be read."""
    found = {}
    for path in libraries:
        try:
            found[content_of(path)] = path.name
        except OSError:
            continue
    return found


def content_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def told(libraries: Sequence[Path], broken: Sequence[Broken]) -> str:
    """The setting's state in words, for whoever has to put it right."""
    if not libraries:
        return f"{SETTING} names no library"
    reasons = {each.name: f" (not loaded: {each.reason})" for each in broken}
    return f"{SETTING} names " + ", ".join(f"{each.name}{reasons.get(each.name, '')}" for each in libraries)
