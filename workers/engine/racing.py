"""Racing: how much of the data each layer needs before its side of a boundary is sure.

Samples come in random order, and after some of them is a look: layers that are surely among the most sensitive, or
surely not, stop there. A look may stop a layer wrongly, so that all comparisons of all looks share one error rate
(union bound): each is made at ERROR_RATE / comparisons. Of two layers only one can be called the more sensitive
wrongly, so that a pair counts once and its tests are one-sided. Two layers are compared on the same samples. Of
right-or-wrong measures the exact sign test on the samples where the two differ is made, which holds at any size; of
others the paired t test, which rests on the mean of at least FIRST_LOOK differences being near normal. Both ask for the
values that the layers have on *all* samples; t is corrected for how many of these are measured already (finite
population).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ERROR_RATE = 0.05
FIRST_LOOK = 64
"""Samples before the first look: fewer say little of a mean's distribution."""
GROWTH = 1.5
"""From look to look. Smaller steps stop layers sooner, and cost more comparisons and rounds."""


def cut(samples: int, largest: int) -> tuple[int, ...]:
    """Sizes of the shards of a race: one of FIRST_LOOK samples, then from look to look, none larger than asked."""
    ends = [0, min(FIRST_LOOK, samples)]
    while ends[-1] < samples:
        ends.append(min(round(GROWTH * ends[-1]), samples))
    sizes: list[int] = []
    for start, stop in pairwise(ends):
        pieces = -(-(stop - start) // largest)
        sizes += [len(each) for each in np.array_split(np.arange(start, stop), pieces)]
    return tuple(sizes)


def looks(shards: Sequence[int]) -> tuple[int, ...]:
    """After how many shards to look, given the samples in each; the last look is after all of them."""
    ends = np.cumsum(shards)
    found: list[int] = []
    wanted = FIRST_LOOK
    while not found or found[-1] < len(shards):
        found.append(min(int(np.searchsorted(ends, wanted)) + 1, len(shards)))
        wanted = round(GROWTH * int(ends[found[-1] - 1]))
    return tuple(found)


def in_order(measured: Sequence[int], above: Bools) -> tuple[int, ...]:
    """The layers as measured, but that none comes before one that is surely more sensitive.

    Layers stop after different numbers of samples, and what one had on a few is no match for another's on many.
    """
    remaining, found = list(measured), []
    while remaining:
        free = (each for each in remaining if not above[remaining, each].any())
        found.append(next(free, remaining[0]))
        remaining.remove(found[-1])
    return tuple(found)


def comparisons(layers: int, looks: int) -> int:
    """How many there can be at most.

    At each look: every pair of layers, every layer and every prefix of the ranking against a fixed value, and the
    reference's own value.
    """
    return looks * (layers * (layers - 1) // 2 + 2 * layers + 2)


@dataclass(frozen=True, eq=False)
class Race:
    """Layers' values, one for each sample measured so far, higher is more sensitive.

    ``values``: layer → (n,), the first n samples of the common order. ``looks``: how many samples there were at each.
    ``level``: the error rate of one comparison.
    """

    values: Mapping[str, Floats]
    looks: tuple[int, ...]
    level: float

    def above(self) -> Bools:
        """Whether the row's layer is surely more sensitive than the column's, and surely sensitive at all."""
        count, samples = len(self.values), self.looks[-1]
        every = list(self.values.values())
        found = np.zeros((count, count), dtype=np.bool_)
        for n in self.looks[:-1]:
            index = np.flatnonzero([len(each) >= n for each in every])
            if len(index) > 1:
                values = np.stack([every[each][:n] for each in index])
                found[np.ix_(index, index)] |= _surely_above(values, samples, self.level)
        return found


def sides(above: Bools, most: int) -> npt.NDArray[np.int8]:
    """Of each layer: 1 surely among the ``most`` sensitive, -1 surely not, 0 not decided. Shape (L,).

    Whoever is decided leaves: among the rest, those that surely beat all but the remaining places are in, and those
    that surely lose against as many as there are places are out.
    """
    found = np.zeros(len(above), dtype=np.int8)
    places = most
    while (remaining := np.flatnonzero(found == 0)).size:
        among = above[np.ix_(remaining, remaining)]
        inside = among.sum(axis=1) >= len(remaining) - places
        outside = among.sum(axis=0) >= places
        if not (inside | outside).any():
            break
        found[remaining[outside]] = -1
        found[remaining[inside & ~outside]] = 1
        places = most - int((found == 1).sum())
    return found


def _surely_above(values: Floats, samples: int, level: float) -> Bools:
    """Of values of shape (L, n), out of so many samples, by tests of every pair and of every layer against zero."""
    with_zero = np.vstack([values, np.zeros(values.shape[1])])
    n = values.shape[1]
    total, products = with_zero.sum(axis=1), with_zero @ with_zero.T
    difference = total[:, None] - total[None]
    squares = np.diagonal(products)[:, None] + np.diagonal(products)[None] - 2 * products
    if _right_or_wrong(values):
        p_value = _sign_test(difference, squares)
    else:
        p_value = _t_test(difference / n, np.maximum(squares - difference**2 / n, 0.0), n, samples)
    sure: Bools = (difference > 0) & (p_value <= level)
    return sure[:-1, :-1] & sure[:-1, -1:]


def _right_or_wrong(values: Floats) -> bool:
    """Whether all are -1, 0 or 1 and no two differ by more than 1, as drops of right and wrong answers do."""
    whole = bool(np.isin(values, (-1.0, 0.0, 1.0)).all())
    return whole and bool((values.max(axis=0) - values.min(axis=0) <= 1).all())


def _sign_test(difference: Floats, discordant: Floats) -> Floats:
    """Exact and one-sided (the difference is no more than zero), on the samples where two differ."""
    larger = np.round((discordant + difference) / 2)
    p_value: Floats = stats.binom.sf(larger - 1, np.round(discordant), 0.5)
    return p_value


def _t_test(mean: Floats, squares: Floats, n: int, samples: int) -> Floats:
    """One-sided, of a mean no more than zero; ``squares``: of deviations from the mean, summed."""
    error = np.sqrt(squares / (n - 1) / n * (1 - n / samples))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, mean / error)
    p_value: Floats = stats.t.sf(t, n - 1)
    return p_value
