"""Samples drawn one after another, some with better chances than others, and means over all of them from the first few.

Nothing is drawn twice. With equal chances the mean is the plain one, its error corrected for how much is drawn
already. With unequal chances the k-th sample drawn, of value y and chance p among all, says of the sum over all
samples: what was drawn before it, plus y · (1 - the chances drawn before it) / p. Each of these is right on average
whatever came before (Des Raj, Some estimators in sampling with varying probabilities without replacement, JASA 51
(1956) 269-284, there with equal weights). Here they are weighted by 1 / (1 - the chances drawn before)², which follows
how far they scatter where y goes with p; with equal chances their error is then that of the plain mean.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def drawn(chances: Floats, seed: int) -> npt.NDArray[np.int64]:
    """The order in which samples are drawn, (N,): each next one in proportion to its chance among those that are left.

    ``chances``: (N,), positive. The smallest of exponential waiting times comes first.
    """
    times = np.random.default_rng(seed).exponential(size=len(chances)) / chances
    return np.argsort(times, kind="stable")


@dataclass(frozen=True)
class Estimate:
    """Means over all samples, shape (...), from the first n of them.

    ``influence``, (..., n): of each sample on its mean. It is linear in the values, so that the standard error of a
    difference of means follows from the difference of influences: the root of Σ influence² / (n (n - 1)).
    """

    mean: Floats
    influence: Floats

    def error(self) -> Floats:
        """The standard errors, shape (...); n must be at least 2."""
        n = self.influence.shape[-1]
        found: Floats = np.sqrt(np.square(self.influence).sum(axis=-1) / (n * (n - 1)))
        return found


@dataclass(frozen=True, eq=False)
class Draw:
    """How the samples were drawn. ``chances``: (N,), positive, of any sum, in the order of drawing."""

    chances: Floats

    @classmethod
    def equal(cls, samples: int) -> "Draw":
        """Every sample with the same chance."""
        return cls(np.ones(samples))

    @property
    def samples(self) -> int:
        """How many there are to draw from."""
        return len(self.chances)

    @cached_property
    def is_equal(self) -> bool:
        """Whether all chances are the same."""
        return bool((self.chances == self.chances[0]).all())

    @cached_property
    def _left(self) -> Floats:
        """The share of the chances that was left before each draw; summed from the end, where it is small."""
        shares: Floats = np.cumsum(self.chances[::-1])[::-1] / self.chances.sum()
        return shares

    def estimate(self, values: Floats) -> Estimate:
        """Means over all samples from the first n, ``values`` of shape (..., n)."""
        n, samples = values.shape[-1], self.samples
        if n == samples or self.is_equal:
            mean = values.mean(axis=-1)
            influence = (values - mean[..., None]) * np.sqrt(1 - n / samples)
            return Estimate(mean, influence)
        left = self._left[:n]
        before = np.cumsum(values, axis=-1) - values
        said = (before + values * (left * self.chances.sum() / self.chances[:n])) / samples  # (..., n)
        weights = 1 / left**2
        weights = weights / weights.sum()
        mean = said @ weights
        return Estimate(mean, (said - mean[..., None]) * weights * n)
