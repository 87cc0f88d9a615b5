"""The range with the smallest squared error of the bins' centres, as in pytorch-quantization 2.1 (``"mse"``).

Every centre from that of bin 128 on is tried as amax: centres are rounded to multiples of amax / 127, at most amax, and
their squared errors weighted with the counts; of equal ones the smallest is taken. There it needs CUDA, is computed in
float32 and calls every amax below 2^-24 zero; here it is float64 (and 127 sums for a range, by cumulative sums).

In half widths of a bin the centre of bin b is 2b + 1, amax is 2i + 1, and level j stands for j · (2i + 1) / 127. It
takes the bins with (2j − 1)(2i + 1) ≤ 254 (2b + 1), whole numbers that are never equal: the left is odd.
"""

import numpy as np
import numpy.typing as npt

from workers.calibration.histogram import Counts, Histogram

FIRST = 128
LARGEST_LEVEL = 127
CHUNK = 2048
"""Ranges at a time: 2 MB for an array of their levels."""


def mse(histogram: Histogram) -> float:
    """The amax of a histogram."""
    centres = np.arange(FIRST, len(histogram.counts))
    errors = squared_errors(histogram.counts, centres)
    return histogram.width * (int(centres[np.argmin(errors)]) + 0.5)


def squared_errors(counts: Counts, centres: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """For each centre as amax the sum of squared errors over all counts, in squared half widths of a bin."""
    odd = 2.0 * np.arange(len(counts)) + 1
    # Σ n, Σ n x and Σ n x² up to each bin, with a leading zero: (bins + 1,)
    sums = [np.append(0.0, np.cumsum(counts * odd**power)) for power in range(3)]
    chunks = [centres[start : start + CHUNK] for start in range(0, len(centres), CHUNK)]
    return np.concatenate([_chunk(sums, 2 * each + 1, len(counts)) for each in chunks])


def _chunk(sums: list[npt.NDArray[np.float64]], amax: npt.NDArray[np.int64], bins: int) -> npt.NDArray[np.float64]:
    levels = np.arange(LARGEST_LEVEL + 1)
    starts = -((254 - (2 * levels - 1) * amax[:, None]) // 508)  # (ranges, levels), rounded up
    starts[:, 0] = 0
    bounds = np.append(starts, np.full((len(amax), 1), bins), axis=1)
    count, first, second = (np.diff(each[bounds]) for each in sums)  # (ranges, levels)
    value = levels * (amax[:, None] / LARGEST_LEVEL)
    found: npt.NDArray[np.float64] = (second - 2 * value * first + value**2 * count).sum(axis=1)
    return found
