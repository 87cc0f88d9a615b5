"""The value below which a share of all |x| lies, to a bin's width, as in pytorch-quantization 2.1 (``"percentile"``).

The range is the lower edge of the bin that holds the percentile. Where it differs from there:

- A share that a bin just fills (99.9 % of 30,000 values) is decided in whole numbers. There the rounding of a sum of
  quotients decides, and may skip to the next bin that is not empty, hundreds of bins away where tails are thin.
- A percentile in the lowest bin gives the width of that bin and not zero, which would wipe out a sparse tensor.
"""

import math

import numpy as np

from workers.calibration.histogram import Histogram


def percentile(histogram: Histogram, percent: float) -> float:
    """The amax of a histogram; ``percent`` up to 100."""
    # whole numbers: a share that a bin just fills must not be missed by the rounding of a product
    needed = math.ceil(round(percent * histogram.total / 100, 3))
    index = int(np.searchsorted(np.cumsum(histogram.counts), needed))
    return histogram.width * max(index, 1)
