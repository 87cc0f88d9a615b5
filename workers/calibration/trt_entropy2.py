"""The range of TensorRT's EntropyCalibrator2: the algorithm of its developers' talk, with Q made of P.

S. Migacz, "8-bit Inference with TensorRT" (GTC 2017): |x| in 2,048 bins; for each range of i bins from 128 to 2,048, P
is the bins below i with the outliers added to the last; P in 128 levels, expanded over the bins of P that are not
empty, is Q; with the smallest KL(P‖Q) at i, amax is (i + 0.5) bins. The library itself is closed: how it splits i bins
among the levels, and which of equal divergences it takes, is not published. Here levels are split in proportion, as in
NVIDIA's pytorch-quantization, and of equal divergences the widest range is taken.
"""

import numpy as np

from workers.calibration.divergence import LEVELS, divergences, last_of_the_smallest
from workers.calibration.histogram import BINS, Histogram


def trt_entropy2(histogram: Histogram) -> float:
    """The amax of a histogram."""
    counts, width = histogram.coarse()
    ranges = np.arange(LEVELS, BINS + 1)
    found = divergences(counts, ranges, levels_see_outliers=True)
    return width * (int(ranges[last_of_the_smallest(found)]) + 0.5)
