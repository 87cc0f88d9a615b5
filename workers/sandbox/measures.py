"""What confines a sandbox on this host, measure by measure, and why the rest does not hold."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

ESSENTIAL = ("files", "network", "processes", "system calls")
"""What ``sandbox: required`` asks for."""


@dataclass(frozen=True)
class Measure:
    """``name``: of what is confined. ``found``: how it is, or why it is not."""

    name: str
    holds: bool
    found: str


ADAPTER = TypeAdapter(tuple[Measure, ...])


def to_document(measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """As JSON."""
    return [asdict(each) for each in measures]


def missing(measures: Sequence[Measure]) -> list[Measure]:
    """The essential ones that do not hold."""
    return [each for each in measures if each.name in ESSENTIAL and not each.holds]


def told(measures: Sequence[Measure]) -> str:
    """Those that do not hold, in one sentence for whoever runs the worker."""
    return "; ".join(f"{each.name}: {each.found}" for each in measures)
