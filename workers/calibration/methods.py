"""From what calibration kept of a tensor to its range, by the method that was asked for.

The outcomes that no method decides: a tensor without values, or with NaN or infinite ones, has no range; one that is
constant has its constant's magnitude (0.0 for zeros), which int8 then holds without error.
"""

from dataclasses import dataclass
from typing import assert_never

from service.domain.settings import CalibrationMethod, CalibrationSettings
from workers.calibration.entropy import entropy
from workers.calibration.histogram import Histogram
from workers.calibration.maximum import maximum
from workers.calibration.mse import mse
from workers.calibration.percentile import percentile
from workers.calibration.trt_entropy import trt_entropy
from workers.calibration.trt_entropy2 import trt_entropy2
from workers.calibration.trt_legacy import trt_legacy


@dataclass(frozen=True)
class Unusable:
    """No range can be given, and why."""

    reason: str


def amax(histogram: Histogram, settings: CalibrationSettings) -> float | Unusable:
    """The calibrated maximum of |x|; 0.0 for a tensor that is zero throughout."""
    if not histogram.finite:
        return Unusable("its input held NaN or infinite values during calibration")
    extent = histogram.extent
    if extent is None:
        return Unusable("its input was empty during calibration")
    return abs(extent.high) if extent.low == extent.high else _by_method(histogram, settings)


def _by_method(histogram: Histogram, settings: CalibrationSettings) -> float:
    match settings.method:
        case CalibrationMethod.MAX | CalibrationMethod.TRT_MINMAX:
            return maximum(histogram)
        case CalibrationMethod.PERCENTILE:
            return percentile(histogram, settings.percentile)
        case CalibrationMethod.MSE:
            return mse(histogram)
        case CalibrationMethod.ENTROPY:
            return entropy(histogram)
        case CalibrationMethod.TRT_ENTROPY2:
            return trt_entropy2(histogram)
        case CalibrationMethod.TRT_ENTROPY:
            return trt_entropy(histogram)
        case CalibrationMethod.TRT_LEGACY:
            return trt_legacy(histogram, quantile=settings.quantile, cutoff=settings.cutoff)
        case _:
            assert_never(settings.method)
