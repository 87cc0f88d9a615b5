"""The range that loses the least information, as pytorch-quantization 2.1 finds it (``compute_amax("entropy")``).

The divergence between the histogram and its 128 levels is computed for every range from 128 bins to all; of equal ones
the widest is taken. As there, the lowest bin counts as many values as the one above it, so that the zeros of a ReLU do
not decide. Where it differs from there:

- A range within which no value lies has no divergence; there it is NaN, which wins over every number.
- Nothing overflows at 2^31 values.
"""

import numpy as np

from workers.calibration.divergence import LEVELS, divergences, last_of_the_smallest
from workers.calibration.histogram import Histogram


def entropy(histogram: Histogram) -> float:
    """The amax of a histogram with a value outside its lowest bin."""
    counts = histogram.counts.copy()
    counts[0] = counts[1]
    ranges = np.arange(LEVELS, len(counts) + 1)
    found = divergences(counts, ranges, levels_see_outliers=False)
    return histogram.width * int(ranges[last_of_the_smallest(found)])
