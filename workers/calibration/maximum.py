"""The largest |x|: ``MaxCalibrator`` of pytorch-quantization 2.1, and TensorRT's MinMaxCalibrator.

TensorRT's "uses the entire range of the activation distribution" (developer guide for TensorRT 8.6): with one scale for
both signs, that is max |x|.
"""

from workers.calibration.histogram import Histogram


def maximum(histogram: Histogram) -> float:
    """The amax of a histogram that has seen a value."""
    extent = histogram.extent
    assert extent is not None
    return max(-extent.low, extent.high)
