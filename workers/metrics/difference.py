"""How far two arrays that should be equal lie apart, in float64, with every edge decided."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def relative_rms(found: Array, expected: Array) -> float:
    """The root mean square of the difference over that of what is expected.

    NaN and infinite values are left out where both agree on them, and make it infinite where not. Of zeros alone any
    difference is infinite; nothing to compare is no difference.
    """
    difference, size = _finite(found, expected)
    if difference is None:
        return float("inf")
    noise, signal = (float(np.square(each).sum()) for each in (difference, size))
    if noise == 0.0:
        return 0.0
    return float(np.sqrt(noise / signal)) if signal else float("inf")


def max_abs(found: Array, expected: Array) -> float:
    """The largest difference of one value; infinite where the two do not agree on NaN and infinite values."""
    difference, _ = _finite(found, expected)
    if difference is None:
        return float("inf")
    return float(np.abs(difference).max()) if difference.size else 0.0


def _finite(found: Array, expected: Array) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64]]:
    """The difference and the expected values where those are finite, flat; no difference where the rest differs."""
    one, other = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True) or not np.isfinite(one[finite]).all():
        return None, other[finite]
    return one[finite] - other[finite], other[finite]
