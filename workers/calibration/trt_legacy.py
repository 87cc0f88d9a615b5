"""The range of TensorRT's LegacyCalibrator, as far as it is documented: by a quantile and a cutoff.

``IInt8LegacyCalibrator`` (NvInfer.h of TensorRT 5 to 10) has ``getQuantile``, the quantile that selects the maximum,
and ``getRegressionCutoff``, the fraction of the maximum at which a regression cuts off. The regression stood in a paper
that NVIDIA did not publish, so the cutoff is taken as what its description says, a bound: amax is the smaller of the
quantile of |x| and of cutoff times the maximum. With cutoff 1 that is the quantile alone, with both 1 the maximum.
"""

from workers.calibration.histogram import Histogram
from workers.calibration.maximum import maximum
from workers.calibration.percentile import percentile


def trt_legacy(histogram: Histogram, *, quantile: float, cutoff: float) -> float:
    """The amax of a histogram; ``quantile`` and ``cutoff`` up to 1."""
    largest = maximum(histogram)
    return min(largest if quantile == 1 else percentile(histogram, 100 * quantile), cutoff * largest)
