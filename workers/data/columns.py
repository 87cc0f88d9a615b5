"""What the columns of a Parquet file hold: encoded images, or numbers in lists of one shape."""

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from service.domain.errors import RejectedFile
from service.inspection.formats import quoted
from workers.data.stored import Array


class ColumnKind(StrEnum):
    """What a column can be used as."""

    IMAGES = "images"
    NUMBERS = "numbers"


def kind_of(stored: Any) -> ColumnKind | None:
    """What a column of this Arrow type can be used as; None: nothing."""
    if isinstance(stored, pa.BaseExtensionType):
        stored = stored.storage_type
    if pa.types.is_struct(stored):
        at = stored.get_field_index("bytes")
        return ColumnKind.IMAGES if at >= 0 and _is_binary(stored.field(at).type) else None
    if _is_binary(stored):
        return ColumnKind.IMAGES
    while _is_list(stored):
        stored = stored.value_type
    is_number = pa.types.is_integer(stored) or pa.types.is_floating(stored) or pa.types.is_boolean(stored)
    return ColumnKind.NUMBERS if is_number else None


def tensor_of(column: Any, field: Any, first_row: int) -> Array:
    """The rows of a piece of a column, stacked; raises RejectedFile for gaps and for rows of different shapes."""
    rows = len(column)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    shape: list[int] = []
    while _is_list(column.type):
        _check_no_gaps(column, field.name, first_row)
        lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            message = (
                f"the rows of column {quoted(field.name)} differ in shape (lists of {lengths[0]} and of {lengths[-1]}, "
                f"from row {first_row} on); all samples must have one shape"
            )
            raise RejectedFile(message, code="different-shapes")
        shape.append(int(lengths[0]))
        if shape[-1] == 0:
            raise RejectedFile(f"column {quoted(field.name)} holds empty lists", code="empty-array")
        column = column.flatten()
    _check_no_gaps(column, field.name, first_row)
    values: Array = column.to_numpy(zero_copy_only=False)
    stacked = values.reshape(rows, *_declared_shape(field, tuple(shape)))
    if isinstance(field.type, pa.FixedShapeTensorType) and field.type.permutation is not None:
        return np.transpose(stacked, (0, *(axis + 1 for axis in field.type.permutation)))
    return stacked


def stored_class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """The class names that the Hugging Face datasets library writes beside a column; None where there are none."""
    try:
        described = json.loads((metadata or {})[b"huggingface"])
        names = described["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if isinstance(names, list) and all(isinstance(each, str) for each in names) and len(set(names)) == len(names):
        return tuple(names)
    return None


def _declared_shape(field: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(field.type, pa.FixedShapeTensorType):
        return tuple(field.type.shape)
    stored = (field.metadata or {}).get(b"shape")
    if stored is None:
        return shape
    try:
        declared = json.loads(stored)
    except (ValueError, RecursionError):
        declared = None
    if not isinstance(declared, list) or not all(type(each) is int and each > 0 for each in declared):
        shown = quoted(stored.decode("utf-8", "replace"))
        message = f"column {quoted(field.name)} has the metadata shape {shown}; it must be as in '[3, 32, 32]'"
        raise RejectedFile(message, code="column-shape")
    if math.prod(declared) != math.prod(shape):
        message = (
            f"column {quoted(field.name)} has the metadata shape {tuple(declared)}, which needs {math.prod(declared)} "
            f"numbers, but its rows hold {math.prod(shape)}"
        )
        raise RejectedFile(message, code="column-shape")
    return tuple(declared)


def _check_no_gaps(column: Any, name: str, first_row: int) -> None:
    if column.null_count:
        message = (
            f"column {quoted(name)} has missing values (null) from row {first_row} on; fill them or leave them out"
        )
        raise RejectedFile(message, code="missing-values")


def _is_binary(stored: Any) -> bool:
    return bool(pa.types.is_binary(stored) or pa.types.is_large_binary(stored))


def _is_list(stored: Any) -> bool:
    types = pa.types
    return bool(types.is_list(stored) or types.is_large_list(stored) or types.is_fixed_size_list(stored))
