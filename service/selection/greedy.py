"""The shortest fallback list along the ranking whose measured drop is within the budget.

Candidates are the prefixes of the ranking: 0 layers in floating point, 1, 2, 4, 8, ... Between the last that fails
and the first that passes, the lengths are halved until they meet. A longer list is not always better (layers
interact), so what is found is the shortest among those measured, not a proven minimum; the decision says so.
"""

from collections.abc import Mapping, Sequence

from service.domain.layers import Frozen

# up to this many untried lengths are measured at once: one pass over the data serves them all
WIDTH = 8


class Search(Frozen):
    """Either the prefix lengths to measure next, or (``measure`` empty) the length found; None: no length passes."""

    measure: tuple[int, ...]
    found: int | None


def search(passes: Mapping[int, bool], layers: int) -> Search:
    """The next step, given which prefix lengths were measured and whether they passed.

    ``layers`` is the number of layers; the prefix of all of them is the floating-point model itself.
    """
    ladder = _ladder(layers)
    missing = [each for each in ladder if each not in passes]
    passing = sorted(each for each, ok in passes.items() if ok)
    if not passing:
        return Search(measure=tuple(missing[:WIDTH]), found=None)
    best = passing[0]
    failing = [each for each, ok in passes.items() if not ok and each < best]
    low = max(failing, default=-1)
    untried = [each for each in range(low + 1, best) if each not in passes]
    if not untried:
        return Search(measure=(), found=best)
    return Search(measure=tuple(_spread(untried)), found=None)


def _ladder(layers: int) -> list[int]:
    lengths = [0]
    step = 1
    while step < layers:
        lengths.append(step)
        step *= 2
    return [*lengths, layers]


def _spread(untried: Sequence[int]) -> list[int]:
    if len(untried) <= WIDTH:
        return list(untried)
    stride = (len(untried) + 1) / (WIDTH + 1)
    return sorted({untried[round(stride * (each + 1)) - 1] for each in range(WIDTH)})
