"""What calibration keeps of an activation: how many of its values have which magnitude, and its extent.

The bins are those of pytorch-quantization 2.1 (``HistogramCalibrator``): 2,048 of equal width from 0 to the first
batch's largest |x|, and further bins of that width for larger values. The bin of a value depends on the value and the
grid alone, so that histograms on one grid add up, whatever the order and whoever counted. Where it differs from there:

- Counts are int64 (there float32, whose sums stop growing at 2^24, read as int32 in the end).
- Where a value would need more than 2^20 bins, bins are merged in pairs. Edges of coarser bins are edges of the finer
  ones too, so that this loses no exactness either. (There the array grows without bound.)
- A first batch that is zero throughout fixes no width; then bins of a power of two are taken, 2,048 to 4,096 of them.
- A value on an edge goes to the bin above; only the first batch's largest value belongs to the bin below, as there.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from service.domain.results import Extent

Array = npt.NDArray[np.generic]
Counts = npt.NDArray[np.int64]
Magnitudes = npt.NDArray[np.float32]

BINS = 2048
MOST_BINS = 2**20
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
FAST_RATIO = 2.0**64
"""Up to here quotients and their scaled values are far from overflow in float32."""


@dataclass(frozen=True)
class Grid:
    """Bins of width ``first`` / 2,048, which are merged in pairs where more than ``most`` (a power of two) are needed.

    A level is how often they are merged: bins are 2^level times as wide then.
    """

    first: float
    most: int

    @classmethod
    def of(cls, batch: Array) -> Self:
        """The grid that the first batch fixes: up to its largest finite |x|."""
        magnitudes, _ = _finite_magnitudes(batch)
        largest = float(magnitudes.max()) if magnitudes.size else 0.0
        return cls(largest, MOST_BINS) if largest > 0.0 else cls(SMALLEST, 2 * BINS)

    def level(self, largest: float) -> int:
        """How often bins must be merged for this value to have one."""
        if largest <= self.first:
            return 0
        return max(0, int(largest / self.first * BINS).bit_length() - self.most.bit_length() + 1)

    def bins(self, magnitudes: Magnitudes, level: int) -> npt.NDArray[np.intp]:
        """The bin of each value, none of which needs a higher level.

        x · 2,048 / ``first`` is rounded as in float32, where pytorch-quantization counts. (A quotient that is rounded
        to float64 and then to float32 is the float32 quotient, so both ways give the same bins.)
        """
        largest = float(magnitudes.max())
        scale = math.ldexp(BINS, -level)
        if largest / self.first < FAST_RATIO:
            position = magnitudes / np.float32(self.first)
            position *= np.float32(scale)
        else:
            position = (magnitudes.astype(np.float64) / self.first * scale).astype(np.float32)
        found = position.astype(np.intp)
        last = (BINS - 1) >> level
        if largest == self.first:
            np.minimum(found, last, out=found)
        elif largest > self.first:
            found[magnitudes == np.float32(self.first)] = last
        return found


class Histogram:
    """Counts of |x| on a grid. Values count as float32; NaN and infinite ones are noted and not counted."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.level = 0
        self.counts: Counts = np.zeros(BINS, dtype=np.int64)
        self.finite = True
        self._low, self._high = math.inf, -math.inf

    @classmethod
    def restored(cls, grid: Grid, level: int, counts: Counts, *, finite: bool, extent: Extent | None) -> Self:
        """The histogram that had these parts; ``extent`` None where no finite value was seen."""
        made = cls(grid)
        made.level, made.counts, made.finite = level, counts, finite
        if extent is not None:
            made._low, made._high = extent.low, extent.high
        return made

    @property
    def total(self) -> int:
        """How many finite values were seen."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Of one bin."""
        return math.ldexp(self.grid.first / BINS, self.level)

    @property
    def extent(self) -> Extent | None:
        """The smallest and the largest finite x; None where there was none."""
        return Extent(low=self._low, high=self._high) if self._low <= self._high else None

    def update(self, tensor: Array) -> None:
        """Count one more tensor."""
        magnitudes, extent = _finite_magnitudes(tensor)
        self.finite &= magnitudes.size == tensor.size
        if extent is None:
            return
        self._low, self._high = min(self._low, extent.low), max(self._high, extent.high)
        self._coarsen(self.grid.level(max(-extent.low, extent.high)))
        found = self.grid.bins(magnitudes, self.level)
        self._add(np.bincount(found, minlength=len(self.counts)).astype(np.int64, copy=False))

    def merge(self, other: "Histogram") -> "Histogram":
        """The histogram of all that both have seen; raises ValueError where their grids differ."""
        if other.grid != self.grid:
            raise ValueError(f"histograms on different grids do not add up: {self.grid} and {other.grid}")
        merged = Histogram.restored(
            self.grid, self.level, self.counts.copy(), finite=self.finite and other.finite, extent=self.extent
        )
        merged._low, merged._high = min(self._low, other._low), max(self._high, other._high)
        merged._coarsen(other.level)
        merged._add(_merged_in_pairs(other.counts, merged.level - other.level))
        return merged

    def coarse(self) -> tuple[Counts, float]:
        """At most 2,048 bins, filled up with empty ones to that number, and their width.

        As TensorRT keeps them: a larger value doubles the range until it fits (developer guide for TensorRT 8.6,
        "INT8 Calibration Using C++").
        """
        times = max(0, (len(self.counts) - 1).bit_length() - (BINS - 1).bit_length())
        counts = _merged_in_pairs(self.counts, times)
        return _padded(counts, BINS), math.ldexp(self.width, times)

    def _coarsen(self, level: int) -> None:
        if level > self.level:
            self.counts = _merged_in_pairs(self.counts, level - self.level)
            self.level = level

    def _add(self, counts: Counts) -> None:
        if len(counts) > len(self.counts):
            self.counts = _padded(self.counts, len(counts))
        self.counts[: len(counts)] += counts


def _finite_magnitudes(tensor: Array) -> tuple[Magnitudes, Extent | None]:
    """|x| of the finite values as float32, flat, and the extent of x."""
    with np.errstate(over="ignore"):
        values: Magnitudes = tensor.reshape(-1).astype(np.float32, copy=False)
    if values.size == 0:
        return values, None
    low, high = float(values.min()), float(values.max())  # NaN wins over any number
    if not (math.isfinite(low) and math.isfinite(high)):
        values = values[np.isfinite(values)]
        if values.size == 0:
            return values, None
        low, high = float(values.min()), float(values.max())
    return np.abs(values), Extent(low=low, high=high)


def _merged_in_pairs(counts: Counts, times: int) -> Counts:
    for _ in range(times):
        if len(counts) == 1:
            break
        counts = _padded(counts, len(counts) + len(counts) % 2).reshape(-1, 2).sum(axis=1)  # (bins / 2,)
    return counts


def _padded(counts: Counts, length: int) -> Counts:
    missing = max(0, length - len(counts))
    return np.append(counts, np.zeros(missing, dtype=np.int64)) if missing else counts
