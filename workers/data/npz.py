"""Opens .npz files: stored arrays are mapped where they lie, deflated ones are unpacked once to a temporary file."""

import shutil
import struct
import zipfile
from pathlib import Path

from service.domain.errors import RejectedFile
from service.inspection.arrays import ArrayHeader, sample_count
from service.inspection.formats import quoted
from service.inspection.image_listing import is_litter
from service.inspection.npz_headers import SUFFIX, read_npz_headers
from service.inspection.zip_listing import DAMAGE, list_zip
from workers.data.array_set import ArraySet, map_array, spool
from workers.data.stored import Array

COPY_BYTES = 2**20
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"


def open_npz(path: Path) -> ArraySet:
    """Map all arrays; raises RejectedFile where one cannot be read."""
    members = [each for each in list_zip(path) if not is_litter(each.filename)]
    headers = read_npz_headers(path, members)
    sample_count(headers)
    arrays: dict[str, Array] = {}
    for member in members:
        name = member.filename.removesuffix(SUFFIX)
        if member.compress_type == zipfile.ZIP_STORED:
            arrays[name] = _map_in_place(path, member, headers[name])
        else:
            arrays[name] = _unpack(path, member, headers[name])
    return ArraySet.of(arrays)


def _map_in_place(path: Path, member: zipfile.ZipInfo, header: ArrayHeader) -> Array:
    with path.open("rb") as file:
        file.seek(member.header_offset)
        fields = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = member.header_offset + _LOCAL_HEADER.size + fields[9] + fields[10]
    if fields[0] != _LOCAL_SIGNATURE or start + member.file_size > path.stat().st_size:
        raise _damaged(member, "it reaches beyond the end of the file")
    return map_array(path, header, start + header.offset)


def _unpack(path: Path, member: zipfile.ZipInfo, header: ArrayHeader) -> Array:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as packed:
            unpacked = spool(lambda file: shutil.copyfileobj(packed, file, COPY_BYTES))
    except DAMAGE as error:
        raise _damaged(member, str(error)) from error
    with unpacked:
        if unpacked.seek(0, 2) != member.file_size:
            raise _damaged(member, "it is shorter than announced")
        return map_array(unpacked, header, header.offset)


def _damaged(member: zipfile.ZipInfo, why: str) -> RejectedFile:
    message = f"array {quoted(member.filename)} is damaged ({why}); write the file once more"
    return RejectedFile(message, code="npz-damaged")
