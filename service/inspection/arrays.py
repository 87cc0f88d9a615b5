"""What the headers of stored arrays must fulfil, in whatever file they are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from service.domain.errors import RejectedFile
from service.inspection.formats import quoted

LABEL_NAMES = ("labels", "label", "targets", "target")
NUMERIC_DTYPES = frozenset(
    np.dtype(kind)
    for kind in (
        *(np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64),
        *(np.float16, np.float32, np.float64),
    )
)


@dataclass(frozen=True)
class ArrayHeader:
    """Where an array lies and how to read it. ``offset`` counts from the start of its file or zip member."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int
    fortran_order: bool = False


def element_count(shape: Iterable[int]) -> int:
    """The number of elements, in unbounded integers."""
    count = 1
    for each in shape:
        count *= each
    return count


def label_name(names: Iterable[str]) -> str | None:
    """Which of the arrays holds the labels; raises RejectedFile where more than one could."""
    found = [name for name in names if name in LABEL_NAMES]
    if len(found) > 1:
        raise RejectedFile(
            f"both {found[0]!r} and {found[1]!r} could be the labels; keep one of them", code="ambiguous-labels"
        )
    return found[0] if found else None


def sample_count(headers: Mapping[str, ArrayHeader]) -> int:
    """How many samples all arrays hold; raises RejectedFile where they do not agree, or there is nothing to feed."""
    if not headers:
        raise RejectedFile("the file holds no arrays; save the model's inputs, and labels", code="no-arrays")
    if label_name(headers) is not None and len(headers) == 1:
        message = "the file holds labels but no inputs; add an array that is named after the model's input"
        raise RejectedFile(message, code="no-inputs")
    for name, header in headers.items():
        _check_shape(name, header.shape)
    lengths = {name: header.shape[0] for name, header in headers.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{quoted(name)} {length}" for name, length in list(lengths.items())[:8])
        message = f"the arrays hold different numbers of samples (their first axis): {listed}; they must be the same"
        raise RejectedFile(message, code="different-lengths")
    return next(iter(lengths.values()))


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if not shape:
        message = f"array {quoted(name)} is a single number; the first axis of each array must be the sample"
        raise RejectedFile(message, code="no-sample-axis")
    if shape[0] == 0:
        raise RejectedFile(f"array {quoted(name)} holds 0 samples; at least one is needed", code="no-samples")
    if element_count(shape) == 0:
        raise RejectedFile(f"array {quoted(name)} of shape {shape} is empty", code="empty-array")
