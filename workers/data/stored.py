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
    """Stored samples, in a fixed order."""

    @property
    def samples(self) -> int:
        """How many there are."""

    @property
    def specs(self) -> Mapping[str, ArraySpec]:
        """The arrays by name, without the targets."""

    @property
    def targets(self) -> Array | None:
        """One row for each sample; int64 of shape (samples,) for class labels."""

    @property
    def class_names(self) -> Sequence[str] | None:
        """The classes' names by label, where the file tells them."""

    @property
    def class_counts(self) -> Mapping[str, int] | None:
        """How many samples each class has, by its name or else by its label."""

    def batch(self, indices: Indices) -> RawTensors:
        """The samples at these positions, in this order, as they are stored."""
