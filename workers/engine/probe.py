"""What probes say of the layers and of their interactions; pure functions of the sums that shards hand in.

All of it is to first order: what the layers' own int8 errors do to the output where it is linear in them. The
intervals are of that number, over samples and probes; how far the network is from linear they do not know, and
``beyond_linear`` does.

Intervals of means: P. Hall, On the removal of skewness by transformation, J. R. Statist. Soc. B 54 (1992) 221-228, with
Student's t in place of the normal quantile. A squared derivative along a random direction is about a chi-squared of one
degree of freedom times what samples differ by; there Student's own interval holds the mean in 0.91 of the cases at 100
samples, this one in 0.95 (docs/statistics.md).
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from service.domain.results import Interaction, Interval
from workers.engine.probe_sums import Floats, MeanSums, Measure, PairSums, ProbeSums
from workers.metrics.intervals import CONFIDENCE, undefined

FAR = 0.25
"""|ln(exact / probe)| from which on the two are said to differ."""

LARGE = 5e-4
"""Share of the fp32 output's variance from which on an output MSE is taken to lie beyond the linear range.

Chosen on four networks, and no law: on a keyword transformer and a MobileNet the six layers above it include those that
spoil the MSE of sets of layers (exact over probe up to e^0.6), on two CIFAR-10 ResNets no layer comes near.
"""

NOISE = 2.0
"""Standard errors within which an interaction counts as none.

There are L² / 2 of them: with one standard error, which leaves a third of pure noise standing, sets of layers of a
ResNet-20 were foreseen worse by KL with interactions than without them (docs/benchmarks.md).
"""

SCALE: Mapping[Measure, float] = {"mse": 1.0, "kl": 0.5}
"""A divergence is half its second derivative."""


@dataclass(frozen=True, eq=False)
class Gram:
    """What layers do together: G_ij, whose sum over a set of layers in int8 (both indices) is what the set does.

    ``values``, their standard errors ``errors``, and ``shrunk``: all (L, L) float64. Off the diagonal ``shrunk`` is
    ``values`` times max(0, 1 − (2 error / value)²), Breiman's non-negative garrote for each entry by itself: what lies
    within two standard errors of zero is zero. The diagonal is not shrunk. Layers that could not be probed are not in
    it. (L. Breiman, Better subset regression using the nonnegative garrote, Technometrics 37 (1995) 373-384.)
    """

    layers: tuple[str, ...]
    values: Floats
    errors: Floats
    shrunk: Floats

    def predict(self, int8: Collection[str], *, interactions: bool = True) -> float:
        """The measure with exactly these layers in int8, never below zero; raises ValueError for an unknown layer.

        Without ``interactions`` it is the plain sum of the layers' own.
        """
        unknown = sorted(set(int8) - set(self.layers))
        if unknown:
            raise ValueError(f"int8: layer {unknown[0]} was not probed")
        index = [place for place, each in enumerate(self.layers) if each in int8]
        if not interactions:
            return float(self.shrunk.diagonal()[index].sum())
        return max(0.0, float(self.shrunk[np.ix_(index, index)].sum()))

    def with_measured(self, measured: Mapping[str, float]) -> "Gram":
        """With these layers' exactly measured values on the diagonal; raises ValueError for an unknown layer."""
        values, errors, shrunk = self.values.copy(), self.errors.copy(), self.shrunk.copy()
        for layer, value in measured.items():
            if layer not in self.layers:
                raise ValueError(f"measured: layer {layer} was not probed")
            place = self.layers.index(layer)
            values[place, place] = shrunk[place, place] = value
            errors[place, place] = 0.0
        return replace(self, values=values, errors=errors, shrunk=shrunk)


def gram(sums: ProbeSums, measure: Measure) -> Gram:
    """The interactions in a measure; raises ValueError where the sums do not hold it."""
    pairs = _pairs(sums, measure)
    if pairs is None:
        raise ValueError(f"measure: {measure!r} was not probed: the output holds no class scores")
    kept = [index for index, each in enumerate(sums.layers) if each not in sums.failures]
    inside, scale, n = np.ix_(kept, kept), SCALE[measure], sums.samples
    values = scale * pairs.first[inside] / n
    errors = np.full_like(values, np.inf)
    if n > 1:
        variance = scale**2 * pairs.second[inside] / n - np.square(values)
        errors = np.sqrt(np.maximum(variance, 0.0) / (n - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        keep = np.maximum(0.0, 1.0 - np.square(NOISE * errors / values))
    shrunk = np.where(values == 0, 0.0, values * keep)
    np.fill_diagonal(shrunk, values.diagonal())
    return Gram(tuple(sums.layers[index] for index in kept), values, errors, shrunk)


def interactions(found: Gram, measure: Measure) -> tuple[Interaction, ...]:
    """Those that are not all noise, the largest first: what two layers do beyond the sum of each (2 · G_ij)."""
    rows, columns = np.nonzero(np.triu(found.shrunk, 1))
    every = [
        Interaction(
            layers=(found.layers[row], found.layers[column]),
            measure=measure,
            value=2 * float(found.values[row, column]),
            standard_error=2 * float(found.errors[row, column]),
            shrunk=2 * float(found.shrunk[row, column]),
        )
        for row, column in zip(rows, columns, strict=True)
    ]
    return tuple(sorted(every, key=lambda each: -abs(each.shrunk)))


def estimates(sums: ProbeSums) -> dict[str, dict[str, Interval]]:
    """Layer → measure → its mean over the samples: ``mse``, ``kl`` and ``loss_change`` (cross-entropy in nats).

    Only measures that were probed. A layer that could not be probed has no numbers, and the reason as ``method``.
    """
    found: dict[str, dict[str, Interval]] = {each: {} for each in sums.layers}
    for index, layer in enumerate(sums.layers):
        for measure in SCALE:
            pairs = _pairs(sums, measure)
            if pairs is not None:
                found[layer][measure] = _squares_mean(pairs, index, sums.samples, SCALE[measure])
        if sums.loss is not None:
            found[layer]["loss_change"] = _mean(sums.loss, index, sums.samples)
        if layer in sums.failures:
            found[layer] = {each: undefined(sums.failures[layer], sums.samples) for each in found[layer]}
    return found


def beyond_linear(sums: ProbeSums, exact: Mapping[str, Interval]) -> frozenset[str]:
    """The layers whose output MSE the probe is not to be believed for.

    Where ``exact`` holds the layer's output MSE: those that differ from it by more than a factor of e^0.25, if either
    the two intervals lie apart or the error is large. Elsewhere: those whose error is large. Large: more than 0.05 % of
    the variance of the fp32 outputs over the samples (see LARGE), which one sample alone does not have.
    """
    variance = sums.spread / sums.spread_freedom if sums.spread_freedom else math.inf
    found = set()
    for layer, measures in estimates(sums).items():
        probed, measured = measures["mse"], exact.get(layer)
        if probed.value is None:
            continue
        if measured is None or measured.value is None:
            believed, larger = False, probed.value
        else:
            believed, larger = not _far(probed.value, measured.value), max(probed.value, measured.value)
        apart = measured is not None and _apart(probed, measured)
        if not believed and (apart or larger > LARGE * variance):
            found.add(layer)
    return frozenset(found)


def _pairs(sums: ProbeSums, measure: Measure) -> PairSums | None:
    return sums.mse if measure == "mse" else sums.kl


def _far(one: float, other: float) -> bool:
    if one <= 0 or other <= 0:
        return one != other
    return abs(math.log(one / other)) > FAR


def _apart(one: Interval, other: Interval) -> bool:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.high < other.low or other.high < one.low


def _mean(sums: MeanSums, index: int, n: int) -> Interval:
    """By Student's t."""
    center = float(sums.first[index]) / n
    if n == 1:
        return Interval(value=center, low=None, high=None, method="one sample has no interval", samples=1)
    variance = max(0.0, float(sums.second[index]) / n - center**2)
    half = _quantile(n) * math.sqrt(variance / (n - 1))
    return Interval(value=center, low=center - half, high=center + half, method="probe; t", samples=n)


def _squares_mean(sums: PairSums, index: int, n: int, scale: float) -> Interval:
    """Of a mean of what is never negative, by Hall's transformed t."""
    center = float(sums.first[index, index]) / n
    if n == 1:
        return Interval(value=scale * center, low=None, high=None, method="one sample has no interval", samples=1)
    square = float(sums.second[index, index]) / n
    variance = max(0.0, square - center**2)
    error = math.sqrt(variance / (n - 1))
    third = float(sums.third[index]) / n - 3 * center * square + 2 * center**3
    skew = third / variance**1.5 if variance > 0 else 0.0
    quantile = _quantile(n)
    low = center - error * _unskewed(quantile, skew / math.sqrt(n))
    high = center - error * _unskewed(-quantile, skew / math.sqrt(n))
    return Interval(
        value=scale * center,
        low=scale * max(0.0, min(low, center)),
        high=scale * max(high, center),
        method="probe; Hall's transformed t",
        samples=n,
    )


def _unskewed(quantile: float, skew: float) -> float:
    """Where a t of samples of this skewness (over √n) is as likely exceeded as ``quantile`` by one without skewness."""
    if abs(skew) < 1e-4:
        return quantile
    return float(3 / skew * (np.cbrt(1 + skew * (quantile - skew / 6)) - 1))


def _quantile(n: int) -> float:
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1))
