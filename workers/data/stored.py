"""What every evaluation set offers: stored samples by position, their shapes and dtypes, their targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Tensors = Mapping[str, Array]
Indices = npt.NDArray[np.integer]
RawTensors = Mapping[str, Array | list[Array]]
"""Samples as they are stored, stacked; a list of images (height, width, 3) where the sizes may differ."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of an evaluation set: the shape of a single sample (None where samples differ) and the dtype.

    ``encoded``: the samples are image files, decoded to RGB (height, width, 3).
    """

    shape: tuple[int | None, ...]
    dtype: np.dtype[np.generic]
    encoded: bool = False


ENCODED_IMAGES = ArraySpec((None, None, 3), np.dtype(np.uint8), encoded=True)


class EvaluationSet(Protocol):
    """Stored samples. ``specs`` leave out the targets; ``class_counts`` are by class name, or by label."""

    samples: int
    specs: Mapping[str, ArraySpec]
    targets: Array | None
    class_names: Sequence[str] | None
    class_counts: Mapping[str, int] | None

    def batch(self, indices: Indices) -> RawTensors:
        """The samples at these positions, in this order, as they are stored."""
