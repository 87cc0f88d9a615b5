"""Racing: how much of the data each layer needs before its side of a boundary is sure.

Samples come in random order, and after some of them is a look: layers that are surely among the most sensitive, or
surely not, stop there. A look may stop a layer wrongly, so that all tests of all looks share one error rate (union
bound). A pair of layers counts once at a look, for of two layers only one can be called the more sensitive wrongly; and
where the race is for the most sensitive ones alone, only pairs of one of them and one of the others count: whichever
these are, the list is wrong only where such a pair was taken for its opposite.

Two layers are compared on the same samples. Of right-or-wrong measures the exact sign test on the samples where the two
differ is made, which holds at any size; of others the paired t test, which rests on the mean of at least FIRST_LOOK
differences being near normal. Both ask for the values that the layers have on *all* samples; t is corrected for how
many of these are measured already (finite population), or weighted where samples had unequal chances.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import stats

from workers.engine.foreseen import half_widths
from workers.metrics.draw import Draw

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ERROR_RATE = 0.05
FIRST_LOOK = 64
"""Samples before the first look: fewer say little of a mean's distribution."""
GROWTH = 1.25
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


def level(looks: int, tests: int) -> float:
    """The error rate of one test, where so many are made at each look but the last, which decides nothing unsurely."""
    return ERROR_RATE / (max(looks - 1, 1) * max(tests, 1))


@dataclass(frozen=True, eq=False)
class Race:
    """Layers' values, one for each sample measured so far, higher is more sensitive.

    ``values``: layer → (n,), the first n samples of ``draw``. ``looks``: how many samples there were at each.
    ``level``: the error rate of one comparison.
    """

    values: Mapping[str, Floats]
    looks: tuple[int, ...]
    level: float
    draw: Draw

    def above(self) -> Bools:
        """Whether the row's layer is surely more sensitive on all samples than the column's."""
        return self._compared(lambda values: _surely_above(values, values, self.draw, self.level))

    def not_told_below(self) -> Bools:
        """Whether all samples would surely not tell that the row's layer is less sensitive than the column's.

        They would where the two layers' own 95 % intervals lie apart.
        """

        def compared(values: Floats) -> Bools:
            wider = half_widths(values, self.draw)
            return _surely_above(values + wider, values - wider, self.draw, self.level)

        return self._compared(compared)

    def _compared(self, compare: Callable[[Floats], Bools]) -> Bools:
        """Of all looks together; layers are compared on the samples that both have."""
        every = list(self.values.values())
        found = np.zeros((len(every), len(every)), dtype=np.bool_)
        for n in self.looks:
            index = np.flatnonzero([len(each) >= n for each in every])
            if len(index) > 1 and n > 1:
                found[np.ix_(index, index)] |= compare(np.stack([every[each][:n] for each in index]))
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


def is_counted(values: Floats) -> bool:
    """Whether all of (L, n) are -1, 0 or 1 and none of a sample differ by more than 1: drops of right answers."""
    whole = bool(np.isin(values, (-1.0, 0.0, 1.0)).all())
    return whole and bool((values.max(axis=0) - values.min(axis=0) <= 1).all())


def _surely_above(high: Floats, low: Floats, draw: Draw, level: float) -> Bools:
    """Whether the row's mean of ``high`` is above the column's mean of ``low`` on all samples; both of shape (L, n)."""
    if high is low and is_counted(high) and draw.is_equal and high.shape[1] < draw.samples:
        return _sign_tests(high) <= level
    above, below = draw.estimate(high), draw.estimate(low)
    difference = above.mean[:, None] - below.mean[None]
    n = high.shape[1]
    squares = np.square(above.influence).sum(axis=1)[:, None] + np.square(below.influence).sum(axis=1)[None]
    # what of nearly equal values is left by this subtraction is rounding, and no small error
    squares = np.maximum(squares - 2 * above.influence @ below.influence.T, 1e-14 * squares)
    error = np.sqrt(squares / (n * (n - 1)))
    # equal values leave the rounding of their sums, which is no difference
    rounding = 1e-12 * np.maximum(np.abs(above.mean)[:, None], np.abs(below.mean)[None])
    difference = np.where(np.abs(difference) <= rounding, 0.0, difference)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(difference == 0, 0.0, difference / error)
    sure: Bools = (difference > 0) & (stats.t.sf(t, n - 1) <= level)
    return sure


def _sign_tests(values: Floats) -> Floats:
    """p-values, exact and one-sided (the row's mean is no more than the column's), on the samples where two differ."""
    total, products = values.sum(axis=1), values @ values.T
    difference = total[:, None] - total[None]
    discordant = np.diagonal(products)[:, None] + np.diagonal(products)[None] - 2 * products
    larger = np.round((discordant + difference) / 2)
    p_value: Floats = stats.binom.sf(larger - 1, np.round(discordant), 0.5)
    return p_value
