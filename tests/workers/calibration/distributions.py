"""Tensors that look like activations, and what calibration keeps of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from workers.calibration.histogram import Grid, Histogram

RNG = np.random.default_rng(0)
TENSORS = {
    "normal": RNG.standard_normal((61, 7, 5, 3)),
    "after a ReLU": np.maximum(RNG.standard_normal((64, 201)), 0),
    "log-normal": RNG.lognormal(0, 2, 20_001),
    "uniform": RNG.uniform(-3, 1, (101, 31)),
    "negative": -RNG.lognormal(0, 1, 5001),
    "one value far out": np.append(RNG.standard_normal(10_000), 500.0),
    "after a ReLU6": np.clip(RNG.standard_normal((64, 99)) * 4, 0, 6),
    "tiny": RNG.standard_normal(5003) * 1e-30,
    "huge": RNG.standard_normal(5007) * 1e30,
}


def counted(batches: Sequence[Any], grid: Grid | None = None) -> Histogram:
    """The histogram of all batches, on the grid of the first where none is given."""
    arrays = [np.asarray(each) for each in batches]
    histogram = Histogram(grid or Grid.of(arrays[0] if arrays else np.zeros(0, np.float32)))
    for each in arrays:
        histogram.update(each)
    return histogram


def growing(factor: float, size: int = 5001, steps: int = 4) -> list[Any]:
    """Batches of normal values, each ``factor`` times as wide as the one before."""
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(size) * factor**step).astype(np.float32) for step in range(steps)]
