"""The shortest fallback list along the ranking whose measured drop is within the budget.

Candidates are the prefixes of the ranking. Between the longest that fails and the shortest that passes, lengths 1, 2,
4, 8, ... above the failing one are measured together (one pass over the data serves them all), until the two meet. A
longer list is not always better (layers interact), so what is found is the shortest among those measured, not a
proven minimum; the decision says so.
"""

from collections.abc import Mapping

from service.domain.layers import Frozen


class Search(Frozen):
    """Either the prefix lengths to measure next, or (``measure`` empty) the shortest length that passes."""

    measure: tuple[int, ...]
    found: int


def search(passes: Mapping[int, bool]) -> Search:
    """The next step, given which prefix lengths were measured and whether they passed.

    At least one must have passed (the prefix of all layers is the floating-point model itself).
    """
    best = min(length for length, passed in passes.items() if passed)
    low = max((length for length in passes if length < best), default=-1)
    return Search(measure=tuple(_above(low, best)), found=best)


def _above(low: int, best: int) -> list[int]:
    lengths, step = [], 1
    while low + step < best:
        lengths.append(low + step)
        step *= 2
    return lengths
