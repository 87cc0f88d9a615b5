"""95 % confidence intervals, each with the name of the method that made it.

Paired 0/1 outcomes: T. Tango, Equivalence test and confidence interval for the difference in proportions for the
paired-sample design, Statistics in Medicine 17 (1998) 891-908; p-value: the exact McNemar test (binomial on the
discordant pairs). Proportions: E. B. Wilson, JASA 22 (1927) 209-212. Means: Student's t. Ratios: the delta method.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from service.domain.results import Interval

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
Z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))


def undefined(reason: str, samples: int) -> Interval:
    """No number, and why."""
    return Interval(value=None, low=None, high=None, method=reason, samples=samples)


def mean(values: Floats) -> Interval:
    """Of a mean, by Student's t. The p-value is of a true mean of zero."""
    n = len(values)
    if n == 0:
        return undefined("no samples", 0)
    center = float(values.mean())
    if n == 1:
        return Interval(value=center, low=None, high=None, method="one sample has no interval", samples=1)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    if error == 0.0:
        p_value = 1.0 if center == 0.0 else 0.0
        return Interval(value=center, low=center, high=center, method="t", samples=n, p_value=p_value)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * error
    p_value = float(2 * stats.t.sf(abs(center / error), n - 1))
    return Interval(value=center, low=center - half, high=center + half, method="t", samples=n, p_value=p_value)


def proportion(values: Floats) -> Interval:
    """Of a share of ones among zeros and ones, by Wilson's score."""
    n = len(values)
    if n == 0:
        return undefined("no samples", 0)
    p = float(values.mean())
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(value=p, low=min(low, p), high=max(high, p), method="Wilson", samples=n)


def proportion_difference(first: Floats, second: Floats) -> Interval:
    """Of mean(first) − mean(second) for paired zeros and ones: Tango's score interval, exact McNemar p-value."""
    n = len(first)
    if n == 0:
        return undefined("no samples", 0)
    b = int(((first == 1) & (second == 0)).sum())
    c = int(((first == 0) & (second == 1)).sum())
    low, high = _tango(b, c, n)
    p_value = float(stats.binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0
    method = "Tango score; exact McNemar p"
    return Interval(value=(b - c) / n, low=low, high=high, method=method, samples=n, p_value=p_value)


def _tango(b: int, c: int, n: int) -> tuple[float, float]:
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

    return bound(-1.0 + 1e-12, Z), bound(1.0 - 1e-12, -Z)


def sqnr_db(signal: Floats, noise: Floats) -> Interval:
    """Of 10·log10(Σ signal / Σ noise) in dB, by the delta method on the logarithm of the ratio of means, with t."""
    n = len(noise)
    if n == 0:
        return undefined("no samples", 0)
    s, e = float(signal.mean()), float(noise.mean())
    if e == 0.0:
        return undefined("no noise at all: the outputs are identical", n)
    if s == 0.0:
        return undefined("the fp32 output is zero throughout", n)
    value = 10 * math.log10(s / e)
    if n == 1:
        return Interval(value=value, low=None, high=None, method="one sample has no interval", samples=1)
    influence = (signal / s - noise / e) * (10 / math.log(10))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * float(influence.std(ddof=1)) / math.sqrt(n)
    return Interval(value=value, low=value - half, high=value + half, method="delta method", samples=n)


def jackknife(full: float, without: Floats, samples: int) -> Interval:
    """Of a corpus metric, from its values with each of the g shards left out, shape (g,): delete-a-group jackknife."""
    g = len(without)
    if not math.isfinite(full) or not np.isfinite(without).all():
        return undefined("the metric is not finite on this data", samples)
    if g < 2:
        return Interval(value=full, low=None, high=None, method="one shard has no interval", samples=samples)
    variance = (g - 1) / g * float(np.square(without - without.mean()).sum())
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, g - 1)) * math.sqrt(variance)
    p_value = None
    if variance > 0:
        p_value = float(2 * stats.t.sf(abs(full) / math.sqrt(variance), g - 1))
    method = f"jackknife over {g} shards"
    return Interval(value=full, low=full - half, high=full + half, method=method, samples=samples, p_value=p_value)
