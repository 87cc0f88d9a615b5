"""The range of TensorRT's first EntropyCalibrator: the pseudocode of its developers' talk, as it stands there.

S. Migacz, "8-bit Inference with TensorRT" (GTC 2017), slide "Entropy Calibration - pseudocode": as ``trt_entropy2``,
but Q is made of the bins as counted, without the outliers that P has in its last bin, and the widest range is 2,047
bins (``for i in range(128, 2048)``). A range whose last bin is empty is infinitely bad then, unless nothing lies beyond
it. NVIDIA's documents name one more difference between the two, that this one calibrates after fusion; here both find
the ranges of the same tensors, the inputs of the fused layers.
"""

import numpy as np

from workers.calibration.divergence import LEVELS, divergences, last_of_the_smallest
from workers.calibration.histogram import BINS, Histogram


def trt_entropy(histogram: Histogram) -> float:
    """The amax of a histogram."""
    counts, width = histogram.coarse()
    ranges = np.arange(LEVELS, BINS)
    found = divergences(counts, ranges, levels_see_outliers=False)
    return width * (int(ranges[last_of_the_smallest(found)]) + 0.5)
