"""The Pareto curve of a problem, made once: it hangs on no budget and on nothing measured later, so it can be kept."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError

from service import __version__
from service.selection.candidates import Candidate, optimal_candidates
from service.selection.problem import Problem
from service.selection.search.pareto import POINTS

_CANDIDATES = TypeAdapter(tuple[Candidate, ...])


class Kept(Protocol):
    """Where results lie by the name of their content."""

    def find(self, key: str) -> bytes | None:
        """What was kept under the key."""

    def keep(self, key: str, content: bytes) -> None:
        """Keep it, in addition."""


class NothingKept:
    """Each curve is made anew."""

    def find(self, key: str) -> bytes | None:
        """Nothing."""
        return None

    def keep(self, key: str, content: bytes) -> None:
        """Forget it."""


def optimal_curve(problem: Problem, kept: Kept) -> tuple[Candidate, ...]:
    """The candidates of the problem, the cheapest first: those that were kept, else made and kept."""
    key = curve_key(problem)
    content = kept.find(key)
    found = _read(content) if content is not None else None
    if found is None:
        found = optimal_candidates(problem)
        content = _CANDIDATES.dump_json(found)
    assert content is not None
    kept.keep(key, content)
    return found


def curve_key(problem: Problem) -> str:
    """Names all that the curve hangs on, and the version that makes it; SHA-256 in hexadecimal."""
    digest = hashlib.sha256(f"curve {__version__} {POINTS} {problem.base!r}".encode())
    for group in problem.groups:
        digest.update(f"{group.layers!r} {group.floating!r}\n".encode())
    for each in problem.conversions:
        digest.update(f"{each.source} {each.targets!r} {each.cost!r}\n".encode())
    pairs = [(each.first, each.second) for each in problem.interactions]
    for numbers in (problem.costs, problem.losses, _floats([each.value for each in problem.interactions])):
        digest.update(numbers.tobytes())
    digest.update(np.asarray(pairs, dtype=np.int64).tobytes())
    return digest.hexdigest()


def _floats(values: Sequence[float]) -> "np.typing.NDArray[np.float64]":
    return np.asarray(values, dtype=np.float64)


def _read(content: bytes) -> tuple[Candidate, ...] | None:
    """None where another version wrote it in another form."""
    try:
        return _CANDIDATES.validate_json(content)
    except ValidationError:
        return None
