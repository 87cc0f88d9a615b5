"""Batches for models that take one batch size only."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def length_of(batch: Mapping[str, Array]) -> int:
    """How many samples a batch holds."""
    return len(next(iter(batch.values())))


def filled(array: Array, size: int | None) -> Array:
    """The array, contiguous, its first axis filled up to ``size`` with copies of the last sample."""
    if size is not None and len(array) < size:
        array = np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
    return np.ascontiguousarray(array)
