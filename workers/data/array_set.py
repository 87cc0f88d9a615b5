"""An evaluation set whose arrays are all mapped into memory, and read from disk only where they are touched."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from service.inspection.arrays import ArrayHeader, label_name
from workers.data.labels import as_targets, count_classes
from workers.data.stored import Array, ArraySpec, Indices, RawTensors


@dataclass(frozen=True)
class ArraySet:
    """Arrays with one row for each sample."""

    samples: int
    arrays: Mapping[str, Array]
    targets: Array | None
    class_names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> "ArraySet":
        """Tell the labels, by their name, from the inputs."""
        labels = label_name(arrays)
        targets = None if labels is None else as_targets(np.array(arrays[labels], dtype=native(arrays[labels].dtype)))
        inputs = {name: each for name, each in arrays.items() if name != labels}
        return cls(len(next(iter(inputs.values()))), inputs, targets)

    @property
    def specs(self) -> Mapping[str, ArraySpec]:
        """The arrays' shapes and dtypes, without the sample axis."""
        return {name: ArraySpec(each.shape[1:], native(each.dtype)) for name, each in self.arrays.items()}

    @property
    def class_counts(self) -> Mapping[str, int] | None:
        """How many samples each class has."""
        return count_classes(self.targets, self.class_names)

    def batch(self, indices: Indices) -> RawTensors:
        """Copies of the samples at these positions."""
        return {
            name: np.array(each[indices], dtype=native(each.dtype), order="C") for name, each in self.arrays.items()
        }


def native(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The dtype in this machine's byte order."""
    return dtype.newbyteorder("=")


def map_array(file: Path | IO[bytes], header: ArrayHeader, offset: int) -> Array:
    """The array that lies in a file at this offset."""
    order = "F" if header.fortran_order else "C"
    source = str(file) if isinstance(file, Path) else file
    mapped: Array = np.memmap(source, header.dtype, "r", offset, header.shape, order)  # type: ignore[call-overload]
    return mapped


def spool(write: Callable[[IO[bytes]], None]) -> IO[bytes]:
    """A private temporary file, filled by ``write``; it is gone once nothing holds or maps it any more."""
    file = tempfile.TemporaryFile(prefix="quantsieve-")  # noqa: SIM115 (its owner closes it)
    write(file)
    file.flush()
    return file
