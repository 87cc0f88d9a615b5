"""The Kullback-Leibler divergence between a histogram and its 128 int8 levels, for every range at once.

For a range of i bins, P is the bins below i with all that lies beyond added to the last of them, and Q is what the
levels make of it: level j covers the bins b with j · i / 128 ≤ b < (j + 1) · i / 128, and shares its count equally
among those of its bins that are not empty. Both are normalised. (S. Migacz, "8-bit Inference with TensorRT", GTC 2017,
slides "Entropy Calibration - pseudocode" and "Candidate distribution Q"; the levels' bounds as in
pytorch-quantization 2.1, ``_compute_amax_entropy``.)

With p_b the counts of P, T their sum, q_b those of Q and S their sum,
KL = (Σ p_b log p_b − Σ p_b log q_b) / T + log (S / T).
The first sum is a cumulative sum over bins, and q_b is constant within a level: 128 terms for a range, not i of them.
"""

import numpy as np
import numpy.typing as npt

from workers.calibration.histogram import Counts

LEVELS = 128
CHUNK = 2048
"""Ranges at a time: 2 MB for an array of their levels."""

ROUNDING = 1e-12
"""In nats: a tensor of few values has divergences that are zero, of which sums leave 1e-15 or so."""

Float = npt.NDArray[np.float64]


def divergences(counts: Counts, ranges: npt.NDArray[np.int64], *, levels_see_outliers: bool) -> Float:
    """KL(P‖Q) for each range (in bins, at least 128), float64, in nats.

    Infinite where Q is zero and P is not, and where no value at all lies within the range.
    ``levels_see_outliers``: Q is made of P, whose last bin holds the outliers; otherwise of the bins as counted.
    """
    sums = _Sums(counts)
    found = np.full(len(ranges), np.inf)
    defined = np.flatnonzero(sums.defined(ranges, levels_see_outliers))
    for start in range(0, len(defined), CHUNK):
        some = defined[start : start + CHUNK]
        found[some] = sums.divergences(ranges[some], levels_see_outliers)
    return found


class _Sums:
    """Cumulative sums over the bins, each with a leading zero: shape (bins + 1,)."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.total = int(counts.sum())
        self.mass = np.append(0, np.cumsum(counts))
        self.filled = np.append(0, np.cumsum(counts > 0))
        self.p_log_p = np.append(0.0, np.cumsum(_x_log_x(counts.astype(np.float64))))

    def defined(self, ranges: npt.NDArray[np.int64], levels_see_outliers: bool) -> npt.NDArray[np.bool_]:
        """Where the divergence is finite."""
        within = self.mass[ranges]
        some: npt.NDArray[np.bool_] = within > 0
        return some if levels_see_outliers else some & ((self.counts[ranges - 1] > 0) | (within == self.total))

    def divergences(self, ranges: npt.NDArray[np.int64], levels_see_outliers: bool) -> Float:
        """KL for each range, where it is defined."""
        bounds = -(-np.arange(LEVELS + 1) * ranges[:, None] // LEVELS)  # (ranges, levels + 1), rounded up
        mass, filled = np.diff(self.mass[bounds]), np.diff(self.filled[bounds])  # (ranges, levels)
        last = self.counts[ranges - 1]
        outliers = self.total - self.mass[ranges]
        p = mass.copy()
        p[:, -1] += outliers
        if levels_see_outliers:
            mass = p
            filled[:, -1] += (last == 0) & (outliers > 0)
        log_q = np.log(np.where(mass > 0, mass, 1) / np.maximum(filled, 1))
        p_log_p = self.p_log_p[ranges - 1] + _x_log_x((last + outliers).astype(np.float64))
        found: Float = (p_log_p - (p * log_q).sum(axis=1)) / self.total + np.log(mass.sum(axis=1) / self.total)
        return found


def _x_log_x(x: Float) -> Float:
    return x * np.log(np.where(x > 0, x, 1.0))


def last_of_the_smallest(values: Float) -> int:
    """The position of the minimum; of the last one where several are equal, but for the rounding of their sums."""
    return int(np.flatnonzero(values <= values.min() + ROUNDING)[-1])
