"""The documented algorithms as they are written down, one range after another, in float64: slow references."""

import math
from typing import Any

import numpy as np

LEVELS = 128


def divergence(counts: Any, size: int, *, q_of_p: bool) -> float:
    """KL between the first ``size`` bins (outliers in the last) and their 128 levels."""
    p = counts[:size].astype(np.float64)
    source = p.copy()
    p[-1] += counts[size:].sum()
    if q_of_p:
        source = p.copy()
    if counts[:size].sum() == 0:
        return math.inf
    there = source > 0
    level = np.arange(size) * LEVELS // size
    share = np.bincount(level, source, LEVELS) / np.maximum(np.bincount(level, there, LEVELS), 1)
    q = np.where(there, share[level], 0)
    p, q = p / p.sum(), q / q.sum()
    if ((q == 0) & (p > 0)).any():
        return math.inf
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


def mean_squared_error(counts: Any, width: float, index: int) -> float:
    """Of the bins' centres, rounded to 127 steps up to that of bin ``index``."""
    centres = (np.arange(len(counts)) + 0.5) * width
    scale = 127 / centres[index]
    rounded = np.clip(np.rint(centres * scale), -127, 127) / scale
    return float(((rounded - centres) ** 2 * counts).mean())
