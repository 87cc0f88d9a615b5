"""The arrays of an .npz, by the header of each member; no array is unpacked."""

import warnings
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from service.domain.errors import RejectedFile
from service.inspection.arrays import NUMERIC_DTYPES, ArrayHeader, element_count
from service.inspection.formats import quoted
from service.inspection.zip_listing import DAMAGE

SUFFIX = ".npy"
MOST_ARRAYS = 1024


def read_npz_headers(path: Path, members: list[zipfile.ZipInfo]) -> dict[str, ArrayHeader]:
    """Array name → header; raises RejectedFile for members that are no plain arrays, or claim more than they hold."""
    if len(members) > MOST_ARRAYS:
        raise RejectedFile(
            f"the .npz holds {len(members)} arrays; at most {MOST_ARRAYS} are taken", code="too-many-arrays"
        )
    headers: dict[str, ArrayHeader] = {}
    with zipfile.ZipFile(path) as archive:
        for member in members:
            if not member.filename.endswith(SUFFIX):
                message = f"{quoted(member.filename)} in the .npz is not an array (.npy); write it with numpy.savez"
                raise RejectedFile(message, code="npz-foreign-file")
            name = member.filename.removesuffix(SUFFIX)
            try:
                with archive.open(member) as file:
                    headers[name] = _read_header(name, cast(BinaryIO, file))
            except DAMAGE as error:
                message = f"array {quoted(name)} is damaged or cut off ({error}); write the file once more"
                raise RejectedFile(message, code="npz-damaged") from error
            _check_size(name, headers[name], member.file_size)
    return headers


def _read_header(name: str, file: BinaryIO) -> ArrayHeader:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = npy.read_magic(file)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
            if read is None:
                raise ValueError(f"version {version} of the header is for structured arrays")
            shape, fortran_order, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError, OverflowError) as error:
        message = f"array {quoted(name)} has no readable .npy header ({quoted(str(error))}); write it with numpy.savez"
        raise RejectedFile(message, code="npy-header") from error
    _check_dtype(name, dtype)
    if any(each < 0 for each in shape):
        raise RejectedFile(f"array {quoted(name)} claims the shape {shape}, with a negative size", code="npy-header")
    return ArrayHeader(tuple(int(each) for each in shape), dtype, file.tell(), bool(fortran_order))


def _check_dtype(name: str, dtype: np.dtype[np.generic]) -> None:
    if dtype.hasobject:
        message = (
            f"array {quoted(name)} holds Python objects (a pickle), which run code when they are loaded; "
            "save it with a numeric dtype, such as float32 or int64"
        )
        raise RejectedFile(message, code="object-array")
    if dtype.newbyteorder("=") not in NUMERIC_DTYPES:
        message = (
            f"array {quoted(name)} has the dtype {quoted(str(dtype))}; numbers are needed, such as float32 or int64"
        )
        raise RejectedFile(message, code="array-dtype")


def _check_size(name: str, header: ArrayHeader, member_bytes: int) -> None:
    claimed = element_count(header.shape) * header.dtype.itemsize
    held = member_bytes - header.offset
    if claimed != held:
        message = (
            f"array {quoted(name)} claims {claimed} bytes (shape {header.shape}, {header.dtype}) but holds {held}; "
            "the file is damaged, write it once more"
        )
        raise RejectedFile(message, code="array-size")
