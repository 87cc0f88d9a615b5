"""From output noise to the metric's drop: a monotone fit through measured variants, with its uncertainty.

The fit is the isotonic regression (pool adjacent violators) of the drops on the noise, weighted by 1 / variance,
through (0, 0) and never below zero, with straight lines between its points; with a lower bound it is the unbounded one
cut off there. Beyond the largest noise it goes on in proportion, and says that it is an extrapolation.

The interval is one for another variant measured on as many samples: 2.5 % and 97.5 % quantiles over replicas, each a
fit to variants drawn with replacement whose drops are moved by their own standard errors, plus one more error of the
variant predicted. Standard errors are multiplied by the scatter about the fit where that is larger than they explain.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.stats import norm

from service.domain.layers import Frozen
from service.domain.results import Interval, PredictedDrop

Floats = npt.NDArray[np.float64]

REPLICAS = 200
LEAST_NOISE = float(np.finfo(np.float32).tiny)
"""Less is none: the outputs are float32, and in proportion to such a noise any other is without bound."""
NORMAL = float(norm.ppf(0.975))
"""Half-widths of 95 % intervals in standard errors."""


class NoisyDrop(Frozen):
    """A measured variant: its output noise, predicted or measured, and its drop."""

    noise: float
    drop: Interval


@dataclass(frozen=True, eq=False)
class _Line:
    """``noise``: (k,) ascending from 0; ``drop``: (k,) from 0, never falling."""

    noise: Floats
    drop: Floats

    def at(self, noise: Floats) -> Floats:
        inside = np.interp(noise, self.noise, self.drop)
        last = self.noise[-1]
        return np.where(noise > last, self.drop[-1] * noise / last, inside) if last > 0 else inside


@dataclass(frozen=True, eq=False)
class NoiseFit:
    """``noise``, ``drops`` and their standard ``errors``: (variants,) each, the noise ascending; ``line`` through them.

    ``scatter``: of the drops about the line, in standard errors, at least 1.
    """

    noise: Floats
    drops: Floats
    errors: Floats
    line: _Line
    scatter: float
    seed: int

    @cached_property
    def _replicas(self) -> tuple[tuple[_Line, float], ...]:
        """Lines, each with the error in standard errors of the variant that it predicts."""
        rng = np.random.default_rng(self.seed)
        n, found = len(self.noise), []
        for _ in range(REPLICAS):
            chosen = np.sort(rng.integers(0, n, n))
            moved = self.drops[chosen] + rng.standard_normal(n) * self.errors[chosen] * self.scatter
            line = _isotonic(self.noise[chosen], moved, self.errors[chosen])
            found.append((line, float(rng.standard_normal()) * self.scatter))
        return tuple(found)

    def drop(self, noise: float) -> float:
        """The expected drop."""
        return float(self.line.at(np.array([noise]))[0])

    def half_width(self, noise: float) -> float:
        """Of the 95 % interval that a variant with this noise would have if measured."""
        return NORMAL * float(np.interp(noise, self.noise, self.errors))

    def extrapolates(self, noise: float) -> bool:
        """Whether no variant with so much noise was measured."""
        return noise > float(self.line.noise[-1])

    def predict(self, noise: float) -> PredictedDrop:
        """The drop of another variant, with its interval."""
        where, error = np.array([noise]), self.half_width(noise) / NORMAL
        drawn = [float(line.at(where)[0]) + chance * error for line, chance in self._replicas]
        value = self.drop(noise)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return PredictedDrop(
            value=value,
            low=min(float(low), value),
            high=max(float(high), value),
            variants=len(self.noise),
            extrapolated=self.extrapolates(noise),
        )


def fit_noise(measured: Iterable[NoisyDrop], *, seed: int = 0) -> NoiseFit:
    """Through all variants that have a drop; raises ValueError where none has. The same input, the same fit."""
    usable = sorted((each for each in measured if each.drop.value is not None), key=lambda each: each.noise)
    if not usable:
        raise ValueError("no variant has a drop to fit")
    noise = np.array([each.noise if each.noise >= LEAST_NOISE else 0.0 for each in usable])
    drops = np.array([each.drop.value for each in usable], dtype=float)
    errors = _standard_errors([each.drop for each in usable])
    line = _isotonic(noise, drops, errors)
    standard = (drops - line.at(noise)) / errors
    return NoiseFit(noise, drops, errors, line, max(1.0, float(np.sqrt(np.square(standard).mean()))), seed)


def _isotonic(noise: Floats, drop: Floats, errors: Floats) -> _Line:
    """``noise`` ascending; variants with the same noise are one, with their weighted mean."""
    distinct, place = np.unique(noise, return_inverse=True)
    each = 1 / np.square(errors)
    weights = np.bincount(place, each)
    means = np.bincount(place, each * drop) / weights
    fitted = np.maximum(isotonic_regression(means, weights=weights).x, 0.0)
    if distinct[0] > 0:
        return _Line(np.concatenate([[0.0], distinct]), np.concatenate([[0.0], fitted]))
    return _Line(distinct, np.concatenate([[0.0], fitted[1:]]))


def _standard_errors(drops: Sequence[Interval]) -> Floats:
    """From the intervals; of one without, the largest of the others (1 where no variant has one)."""
    found = [
        (each.high - each.low) / (2 * NORMAL) if each.high is not None and each.low is not None else 0.0
        for each in drops
    ]
    largest = max(found) or 1.0
    return np.array([each if each > 0 else largest for each in found])
