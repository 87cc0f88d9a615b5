"""The Pareto curve of a problem, made once: it hangs on no budget and on nothing measured later, so it can be kept."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError

from service import __version__
from service.selection.candidates import Candidate, greedy_candidates, optimal_candidates
from service.selection.problem import Problem
from service.selection.search.pareto import POINTS

WHOLE, PROGRAMMES, FEWEST = 2_500, 20_000, 6
"""Variables of the programme: as many as a whole curve is made of at once, or any; and points at least."""
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
    found = _found(kept, key)
    if found is None:
        found = optimal_candidates(problem)
    kept.keep(key, _CANDIDATES.dump_json(found))
    return found


def quick_curve(problem: Problem, kept: Kept) -> tuple[tuple[Candidate, ...], str | None]:
    """For somebody who waits: those that were kept, else as many as can be made soon; and what that leaves out.

    Up to ``WHOLE`` variables it is the same curve; beyond, fewer points; beyond ``PROGRAMMES`` the greedy path, without
    proofs. Nothing is kept.
    """
    found = _found(kept, curve_key(problem))
    if found is not None:
        return found, None
    variables = len(problem.groups) + len(problem.conversions) + len(problem.interactions)
    if variables <= WHOLE:
        return optimal_candidates(problem), None
    why = f"the search has {variables:,} variables, too many to answer at once by the whole curve"
    if variables > PROGRAMMES:
        return greedy_candidates(
            problem, per_cost=True, most=POINTS
        ), f"{why}: greedy candidates, without proofs, stand in for it"
    points = max(FEWEST, POINTS * WHOLE // variables)
    return optimal_candidates(problem, points), f"{why}: it has {points} points instead of {POINTS}"


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


def _found(kept: Kept, key: str) -> tuple[Candidate, ...] | None:
    """None where there is nothing, or another version wrote it in another form."""
    content = kept.find(key)
    if content is None:
        return None
    try:
        return _CANDIDATES.validate_json(content)
    except ValidationError:
        return None
