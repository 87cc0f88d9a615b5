"""Arrays and a header as bytes to store: .npy members in a zip, never a pickle; equal content gives equal bytes."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from service.domain.errors import QuantsieveError

Array = npt.NDArray[np.generic]

HEADER = "header.json"
EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time in the zip, so that equal results have one hash
DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, LookupError, TypeError, ValueError)
"""What reading bytes that were never packed can raise."""


def pack(version: int, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """A zip of the arrays under their names, in their order, and the header as JSON."""
    members = {HEADER: json.dumps({"version": version, **header}, sort_keys=True).encode()}
    members |= {f"{name}.npy": _npy(array) for name, array in arrays.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED, 1)
    return buffer.getvalue()


def unpack(version: int, content: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """What ``pack`` wrote with this version; raises one of DAMAGES for anything else."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(archive.read(HEADER))
        if header["version"] != version:
            raise ValueError(f"it has version {header['version']}, and this program reads {version}")
        arrays = {
            name.removesuffix(".npy"): np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
            for name in archive.namelist()
            if name != HEADER
        }
    return header, arrays


def damaged(error: Exception) -> QuantsieveError:
    """What to raise for a stored result that could not be unpacked."""
    return QuantsieveError(f"a shard's stored result cannot be read: {error}", code="damaged-result")


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
