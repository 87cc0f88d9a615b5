"""What an exact sweep will find significant, from some of its samples: surely, surely not, or not known yet.

Its rule (service/selection/ranking.py) is about the numbers that all samples give. Of right-or-wrong measures these
are two counts, bounded from the counts so far by the hypergeometric distribution, which holds at any size. Of others
it is whether mean - t · deviation / √N is above zero, whose estimate is compared with zero by t (delta method).
"""

import math
from bisect import bisect_left

import numpy as np
from scipy import stats

from service.selection.ranking import is_significant
from workers.metrics import intervals
from workers.metrics.draw import Draw, Floats


def half_widths(values: Floats, draw: Draw) -> Floats:
    """What to add to each value for the mean to be larger by the half-width of its 95 % interval on all samples.

    ``values`` (..., n). That half-width is t · deviation / √N; a deviation s grows with the mean of
    ((y - mean)² + s²) / 2 s to first order, and these are what is returned, of shape (..., n).
    """
    samples = draw.samples
    center = draw.estimate(values).mean[..., None]
    squares = np.square(values - center)
    # the mean of squares can come out below zero only by rounding, or where hardly anything is drawn yet
    deviation = np.sqrt(np.maximum(draw.estimate(squares).mean, 0.0))[..., None]
    factor = float(stats.t.ppf(0.5 + intervals.CONFIDENCE / 2, max(samples - 1, 1))) / math.sqrt(samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        grown = np.where(deviation > 0, (squares + deviation**2) / (2 * deviation), 0.0)
    found: Floats = factor * grown
    return found


def significance(drops: Floats, draw: Draw, level: float, *, counted: bool) -> int:
    """1 surely significant on all samples, -1 surely not, 0 not known. ``drops``: (n,), those of the samples so far.

    ``counted``: they are -1, 0 or 1, the differences of right and wrong answers. Either answer is wrong with a
    probability of at most ``level``.
    """
    n, samples = len(drops), draw.samples
    if n < 2:
        return 0
    if counted:
        return _counted(int((drops == 1).sum()), int((drops == -1).sum()), n, samples, level)
    if n == samples:
        return 1 if is_significant(intervals.mean(drops)) else -1
    lower = draw.estimate(drops - half_widths(drops, draw))
    mean, error = float(lower.mean), float(lower.error())
    if mean == 0 or float(stats.t.sf(abs(mean) / error if error else math.inf, n - 1)) > level:
        return 0
    return 1 if mean > 0 else -1


def _counted(better: int, worse: int, n: int, samples: int, level: float) -> int:
    """``better``: the reference right and the variant wrong. Either is significant the sooner the more of it."""
    b_low, b_high = counts(better, n, samples, level / 2)
    c_low, c_high = counts(worse, n, samples, level / 2)
    if is_significant(intervals.counted_difference(b_low, min(c_high, samples - b_low), samples)):
        return 1
    b_high = min(b_high, samples - c_low)
    return 0 if is_significant(intervals.counted_difference(b_high, c_low, samples)) else -1


def counts(found: int, n: int, samples: int, level: float) -> tuple[int, int]:
    """At least and at most how many of all samples are so, of which ``found`` are among the first n.

    Each bound is wrong with a probability of at most ``level``: outside them, so few, or so many, among n are rarer.
    """
    possible = range(found, found + samples - n + 1)
    least = bisect_left(possible, True, key=lambda each: bool(stats.hypergeom.sf(found - 1, samples, each, n) > level))
    most = bisect_left(possible, True, key=lambda each: bool(stats.hypergeom.cdf(found, samples, each, n) <= level))
    return possible[least], possible[most - 1]
