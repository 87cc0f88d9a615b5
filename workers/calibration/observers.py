"""Activation ranges from what flows by in fp32: the maximum, or a percentile of |x|.

``percentile`` follows pytorch-quantization 2.1 (HistogramCalibrator, ``compute_amax("percentile")``): 2,048 bins over
the first tensor's range, extended by bins of the same width as larger values come; the range is the lower edge of the
bin that holds the percentile. Where it differs from there:

- A share that a bin just fills (99.9 % of 30,000 values) is decided in whole numbers. There the rounding of a sum of
  quotients decides, and may skip to the next bin that is not empty, hundreds of bins away where tails are thin.
- Where a later tensor would need more than 2^20 bins the bins are merged in pairs; counts are int64.
- A percentile in the lowest bin gives the width of that bin and not zero, which would wipe out a sparse tensor.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.domain.results import Extent
from service.domain.settings import CalibrationSettings

Array = npt.NDArray[np.generic]

BINS = 2048
MOST_BINS = 2**20


@dataclass(frozen=True)
class Unusable:
    """No range can be given, and why."""

    reason: str


class Observer(Protocol):
    """Sees tensors, then tells the range."""

    def update(self, tensor: Array) -> None:
        """Take in one more tensor."""

    def amax(self) -> float | Unusable:
        """The calibrated maximum of |x|; 0.0 for a tensor that is zero throughout."""

    def extent(self) -> Extent | None:
        """The smallest and the largest x; None where no range can be given."""


def make_observer(settings: CalibrationSettings) -> Observer:
    """The observer of a calibration method."""
    return MaxObserver() if settings.method == "max" else PercentileObserver(settings.percentile)


class MaxObserver:
    """The largest |x|."""

    def __init__(self) -> None:
        self._low, self._high = math.inf, -math.inf
        self._seen = False
        self._finite = True

    def update(self, tensor: Array) -> None:
        """Take in one more tensor."""
        if tensor.size == 0:
            return
        self._seen = True
        low, high = float(tensor.min()), float(tensor.max())  # NaN wins over any number
        self._finite &= math.isfinite(low) and math.isfinite(high)
        self._low, self._high = min(self._low, low), max(self._high, high)

    def amax(self) -> float | Unusable:
        """The largest |x|."""
        extent = self.extent()
        return _unusable(seen=self._seen) if extent is None else max(abs(extent.low), abs(extent.high))

    def extent(self) -> Extent | None:
        """The smallest and the largest x."""
        return Extent(low=self._low, high=self._high) if self._seen and self._finite else None


class PercentileObserver:
    """The value below which ``percentile`` per cent of |x| lie, to a bin's width."""

    def __init__(self, percentile: float) -> None:
        self._percentile = percentile
        self._range = MaxObserver()
        self._counts = np.zeros(0, dtype=np.int64)
        self._width = 0.0
        self._zeros = 0  # values seen before the first non-zero one fixed the width

    def update(self, tensor: Array) -> None:
        """Take in one more tensor."""
        self._range.update(tensor)
        if tensor.size == 0 or self._range.extent() is None:
            return
        values = np.abs(np.asarray(tensor)).ravel()
        largest = float(values.max())
        if self._width == 0.0:
            if largest == 0.0:
                self._zeros += values.size
                return
            self._width = largest / BINS
            self._counts = np.zeros(BINS, dtype=np.int64)
            self._counts[0] = self._zeros
        self._make_room(largest)
        bins = len(self._counts)
        # the largest value of all may lie on the last edge: it belongs to the last bin
        index = np.minimum(values.astype(np.float64) / self._width, bins - 1).astype(np.int64)
        self._counts += np.bincount(index, minlength=bins)

    def _make_room(self, largest: float) -> None:
        while largest > self._width * MOST_BINS:
            pairs = np.append(self._counts, 0) if len(self._counts) % 2 else self._counts
            self._counts = pairs.reshape(-1, 2).sum(axis=1)
            self._width *= 2
        need = int(np.ceil(largest / self._width))
        if need > len(self._counts):
            self._counts = np.append(self._counts, np.zeros(need - len(self._counts), dtype=np.int64))

    def amax(self) -> float | Unusable:
        """The percentile."""
        largest = self._range.amax()
        if isinstance(largest, Unusable):
            return largest
        if self._width == 0.0:
            return 0.0
        # whole numbers: a share that a bin just fills must not be missed by the rounding of a product
        needed = math.ceil(round(self._percentile * int(self._counts.sum()) / 100, 3))
        index = int(np.searchsorted(np.cumsum(self._counts), needed))
        return float(self._width * max(index, 1))

    def extent(self) -> Extent | None:
        """The smallest and the largest x, however far beyond the percentile."""
        return self._range.extent()


def _unusable(*, seen: bool) -> Unusable:
    if not seen:
        return Unusable("its input was empty during calibration")
    return Unusable("its input held NaN or infinite values during calibration")
