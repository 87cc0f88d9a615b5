"""The header of a safetensors file, with every claim of it checked against the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from service.domain.errors import RejectedFile
from service.inspection.arrays import ArrayHeader, element_count
from service.inspection.formats import quoted

LENGTH_BYTES = 8
LONGEST_HEADER = 4 * 2**20
MOST_ARRAYS = 1024
MOST_AXES = 32
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}


def read_safetensors_header(path: Path) -> dict[str, ArrayHeader]:
    """Array name → header; raises RejectedFile for a header that does not fit the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > LONGEST_HEADER:
            raise _bad(f"its header claims {length} bytes; at most {LONGEST_HEADER} are taken")
        if LENGTH_BYTES + length > size:
            raise _bad(f"its header claims {length} bytes, the file holds {size}; it is cut off")
        raw = file.read(length)
    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _bad(f"its header is not valid JSON: {quoted(str(error))}") from error
    if not isinstance(entries, dict):
        raise _bad("its header is not a JSON object")
    entries.pop("__metadata__", None)
    if len(entries) > MOST_ARRAYS:
        raise _bad(f"it holds {len(entries)} arrays; at most {MOST_ARRAYS} are taken")
    start = LENGTH_BYTES + length
    return {name: _header(name, entry, start, size) for name, entry in entries.items()}


def _header(name: str, entry: Any, start: int, size: int) -> ArrayHeader:
    if not isinstance(entry, dict):
        raise _bad(f"the entry of array {quoted(name)} is not a JSON object")
    dtype = _dtype(name, entry.get("dtype"))
    shape = _sizes(entry.get("shape"))
    if shape is None or len(shape) > MOST_AXES:
        raise _bad(f"array {quoted(name)} has no valid shape")
    offsets = _sizes(entry.get("data_offsets"))
    if offsets is None or len(offsets) != 2:
        raise _bad(f"array {quoted(name)} has no valid data_offsets")
    begin, end = offsets
    if begin > end or start + end > size:
        raise _bad(f"array {quoted(name)} lies at bytes {begin} to {end}, the file holds {size - start} bytes of data")
    claimed = element_count(shape) * dtype.itemsize
    if claimed != end - begin:
        raise _bad(f"array {quoted(name)} of shape {shape} needs {claimed} bytes, but has {end - begin}")
    return ArrayHeader(shape, dtype, start + begin)


def _dtype(name: str, stored: Any) -> np.dtype[np.generic]:
    if not isinstance(stored, str) or stored not in _DTYPES:
        raise RejectedFile(
            f"array {quoted(name)} has the dtype {quoted(str(stored))}; one of {', '.join(_DTYPES)} is needed",
            code="array-dtype",
        )
    return np.dtype(_DTYPES[stored])


def _sizes(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, list) and all(type(each) is int and 0 <= each < 2**63 for each in value):
        return tuple(value)
    return None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _bad(why: str) -> RejectedFile:
    return RejectedFile(f"the safetensors file cannot be read: {why}", code="safetensors-header")
