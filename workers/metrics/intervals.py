"""Confidence intervals, 95 % unless told, each with the name of the method that made it.

Paired 0/1 outcomes: T. Tango, Equivalence test and confidence interval for the difference in proportions for the
paired-sample design, Statistics in Medicine 17 (1998) 891-908; p-value: the exact McNemar test (binomial on the
discordant pairs). Proportions: E. B. Wilson, JASA 22 (1927) 209-212. Means: Student's t. Ratios: the delta method.

Only a drop has a p-value: that a squared error or a top-1 is not zero is no finding. Where a number is not finite
there is no interval, and ``method`` says why.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from service.domain.results import Interval
from workers.metrics.draw import Draw, Estimate

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
DRAWN = "t; samples drawn with unequal chances"


def undefined(reason: str, samples: int) -> Interval:
    """No number, and why."""
    return Interval(value=None, low=None, high=None, method=reason, samples=samples)


def mean(values: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Of a mean, by Student's t."""
    n = len(values)
    if n == 0:
        return undefined("no samples", 0)
    center = float(values.mean())
    if not math.isfinite(center):
        return undefined("not finite on this data", n)
    if n == 1:
        return Interval(value=center, low=None, high=None, method="one sample has no interval", samples=1)
    return _t(center, float(values.std(ddof=1)) / math.sqrt(n), n - 1, confidence, method="t", samples=n)


def drawn_mean(values: Floats, draw: Draw, confidence: float = CONFIDENCE) -> Interval:
    """Of a mean over all samples, from those that were drawn with unequal chances, by Student's t."""
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return mean(values, confidence)
    found = draw.estimate(values)
    return _t(float(found.mean), float(found.error()), n - 1, confidence, method=DRAWN, samples=n)


def drawn_mean_drop(drops: Floats, draw: Draw, confidence: float = CONFIDENCE) -> Interval:
    """The same of paired differences, with the p-value of a true mean of zero."""
    return _with_t_test(drawn_mean(drops, draw, confidence), len(drops) - 1, confidence)


def mean_drop(drops: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Of a mean of paired differences, by Student's t, with the p-value of a true mean of zero."""
    return _with_t_test(mean(drops, confidence), len(drops) - 1, confidence)


def proportion(values: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Of a share of ones among zeros and ones, by Wilson's score."""
    n = len(values)
    if n == 0:
        return undefined("no samples", 0)
    p = float(values.mean())
    z = _normal(confidence)
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(value=p, low=min(low, p), high=max(high, p), method="Wilson", samples=n)


def proportion_difference(first: Floats, second: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Of mean(first) − mean(second) for paired zeros and ones: Tango's score interval, exact McNemar p-value."""
    n = len(first)
    if n == 0:
        return undefined("no samples", 0)
    b = int(((first == 1) & (second == 0)).sum())
    c = int(((first == 0) & (second == 1)).sum())
    return counted_difference(b, c, n, confidence)


def counted_difference(b: int, c: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The same from how many of n pairs are (1, 0) and (0, 1)."""
    low, high = _tango(b, c, n, _normal(confidence))
    p_value = float(stats.binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0
    method = "Tango score; exact McNemar p"
    return Interval(value=(b - c) / n, low=low, high=high, method=method, samples=n, p_value=p_value)


def _tango(b: int, c: int, n: int, z: float) -> tuple[float, float]:
    estimate = (b - c) / n

    def score(delta: float) -> float:
        # the restricted maximum-likelihood estimate of the second discordant share, given the difference delta
        middle = -b - c + (2 * n - b + c) * delta
        constant = -c * delta * (1 - delta)
        share = (math.sqrt(max(middle * middle - 8 * n * constant, 0.0)) - middle) / (4 * n)
        variance = n * (2 * share + delta * (1 - delta))
        distance = b - c - n * delta
        if variance <= 0:
            return 0.0 if distance == 0 else math.copysign(math.inf, distance)
        return distance / math.sqrt(variance)

    def bound(edge: float, target: float) -> float:
        inside, outside = estimate, edge
        if (score(edge) - target) * (score(estimate) - target) > 0:
            return edge
        return float(optimize.brentq(lambda d: max(-1e9, min(1e9, score(d))) - target, inside, outside, xtol=1e-12))

    # where every sample is discordant the estimate itself lies on the edge
    return min(bound(-1.0 + 1e-12, z), estimate), max(bound(1.0 - 1e-12, -z), estimate)


def median(values: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Of a median, by order statistics: whatever the distribution is, but the values must not hang on each other.

    H. A. David, H. N. Nagaraja, Order Statistics (2003), section 7.1. Fewer than 6 values have no 95 % interval.
    """
    n = len(values)
    if n == 0:
        return undefined("no samples", 0)
    center = float(np.median(values))
    rank = int(stats.binom.ppf((1 - confidence) / 2, n, 0.5))
    if rank < 1:
        return Interval(value=center, low=None, high=None, method=f"{n} values have no interval", samples=n)
    ordered = np.sort(values)
    low, high = float(ordered[rank - 1]), float(ordered[n - rank])
    return Interval(value=center, low=low, high=high, method="order statistics of the median", samples=n)


def sqnr_db(signal: Floats, noise: Floats, confidence: float = CONFIDENCE, *, draw: Draw | None = None) -> Interval:
    """Of 10·log10(Σ signal / Σ noise) in dB; both are powers per sample. ``draw``: over all samples, by those drawn."""
    if len(noise) and not noise.any():
        return undefined("no noise at all: the outputs are identical", len(noise))
    if len(signal) and not signal.any():
        return undefined("the fp32 output is zero throughout", len(noise))
    return _decibels(signal, noise, confidence, draw)


def sqnr_drop_db(noise: Floats, reference_noise: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Of 10·log10(Σ noise / Σ reference noise) in dB: by how much a variant's SQNR is below the reference's."""
    if len(noise) and not (noise.any() and reference_noise.any()):
        return undefined("no noise at all: the outputs of one of the two are identical to fp32's", len(noise))
    return _decibels(noise, reference_noise, confidence, None)


def _decibels(above: Floats, below: Floats, confidence: float, draw: Draw | None) -> Interval:
    """10·log10 of a ratio of means, by the delta method on its logarithm, with t."""
    n = len(above)
    if n == 0:
        return undefined("no samples", 0)
    numerator, denominator = (_estimate(each, draw) for each in (above, below))
    over, under = float(numerator.mean), float(denominator.mean)
    if not math.isfinite(over) or not math.isfinite(under):
        return undefined("not finite on this data", n)
    value = 10 * (math.log10(over) - math.log10(under))
    if n == 1:
        return Interval(value=value, low=None, high=None, method="one sample has no interval", samples=1)
    influence = (numerator.influence / over - denominator.influence / under) * (10 / math.log(10))
    error = float(Estimate(np.zeros(()), influence).error())
    method = "delta method" if draw is None else f"delta method; {DRAWN}"
    return _t(value, error, n - 1, confidence, method=method, samples=n)


def _estimate(values: Floats, draw: Draw | None) -> Estimate:
    return draw.estimate(values) if draw is not None else Estimate(values.mean(), values - values.mean())


def jackknife(full: float, without: Floats, samples: int) -> Interval:
    """Of a corpus metric, from its values with each of the g shards left out, shape (g,): delete-a-group jackknife."""
    g = len(without)
    if not math.isfinite(full) or not np.isfinite(without).all():
        return undefined("the metric is not finite on this data", samples)
    if g < 2:
        return Interval(value=full, low=None, high=None, method="one shard has no interval", samples=samples)
    variance = (g - 1) / g * float(np.square(without - without.mean()).sum())
    return _t(full, math.sqrt(variance), g - 1, CONFIDENCE, method=f"jackknife over {g} shards", samples=samples)


def jackknife_drop(full: float, without: Floats, samples: int) -> Interval:
    """The same of a drop, with the p-value of a true drop of zero."""
    return _with_t_test(jackknife(full, without, samples), len(without) - 1, CONFIDENCE)


def _normal(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + confidence / 2))


def _t(center: float, error: float, freedom: int, confidence: float, *, method: str, samples: int) -> Interval:
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    return Interval(value=center, low=center - half, high=center + half, method=method, samples=samples)


def _with_t_test(found: Interval, freedom: int, confidence: float) -> Interval:
    if found.value is None or found.high is None:
        return found
    error = (found.high - found.value) / float(stats.t.ppf(0.5 + confidence / 2, freedom))
    if error > 0:
        p_value = float(2 * stats.t.sf(abs(found.value) / error, freedom))
    else:
        p_value = 1.0 if found.value == 0 else 0.0
    return found.model_copy(update={"p_value": p_value})
