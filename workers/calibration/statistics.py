"""Statistics of a layer that need no labels: how far its weights spread, and how much noise int8 adds to its output."""

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def weight_ratio(weight: Array) -> float | None:
    """Max |w| / mean |w| over the whole tensor, 1 at least; None where it is zero throughout, empty or not finite."""
    magnitude = np.abs(weight.astype(np.float64))
    mean = float(magnitude.mean()) if magnitude.size else 0.0
    if mean == 0.0 or not math.isfinite(mean):
        return None
    return float(magnitude.max()) / mean


def sqnr_db(signal: float, noise: float) -> float | str:
    """10 · log10(``signal`` / ``noise``) of two sums of squares, in dB; a sentence where it is not defined."""
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return "its output holds NaN or infinite values"
    if signal == 0.0:
        return "its output is zero throughout"
    if noise == 0.0:
        return "int8 changes nothing of its output"
    return 10.0 * (math.log10(signal) - math.log10(noise))
