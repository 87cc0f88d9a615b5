"""The listing of a zip that somebody sent, with everything refused that could harm the one who unpacks it."""

import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from service.domain.errors import RejectedFile
from service.inspection.formats import quoted

_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_LOCATOR_BYTES = 20
_LOCATOR_SIGNATURE = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_SIGNATURE = b"PK\x06\x06"
_ENTRY_BYTES = 46
_ENTRY_SIGNATURE = b"PK\x01\x02"
_LONGEST_COMMENT = 65_535
_IN_ZIP64 = (0xFFFFFFFF, 0xFFFF)
_DRIVE = re.compile(r"^[A-Za-z]:")
_REGULAR_TYPES = (0, stat.S_IFREG, stat.S_IFDIR)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_PATCHED = 0x20
_LOCAL_HEADER_BYTES = 30

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)
"""What reading a member of a listed zip raises where the zip is damaged."""


@dataclass(frozen=True)
class ZipLimits:
    """What a zip may claim. ``ratio`` (unpacked to packed) counts only above ``free_bytes`` of unpacked size."""

    entries: int = 200_000
    listing_bytes: int = 128 * 2**20
    total_bytes: int = 64 * 2**30
    ratio: int = 200
    free_bytes: int = 256 * 2**20


DEFAULT_LIMITS = ZipLimits()


def list_zip(path: Path, limits: ZipLimits = DEFAULT_LIMITS) -> list[zipfile.ZipInfo]:
    """The files in a zip, without the folders; raises RejectedFile for damage and for anything hostile."""
    _check_listing_size(path, limits)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError, struct.error) as error:
        raise _damaged(str(error)) from error
    size = path.stat().st_size
    seen: set[str] = set()
    for entry in entries:
        if not entry.filename or not 0 <= entry.header_offset < size or entry.flag_bits & _PATCHED:
            raise _damaged(f"the entry of {quoted(entry.filename)} makes no sense")
        _check_entry(entry)
        if entry.filename in seen:
            message = f"the zip holds {quoted(entry.filename)} twice; each name may be there once"
            raise RejectedFile(message, code="zip-duplicate-name")
        seen.add(entry.filename)
    _check_overlaps(entries)
    files = [entry for entry in entries if not entry.is_dir()]
    _check_sizes(files, size, limits)
    return files


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise RejectedFile(
            f"the zip holds an absolute path, {quoted(name)}; all paths must be relative", code="zip-absolute-path"
        )
    if ".." in parts:
        raise RejectedFile(
            f"the zip holds {quoted(name)}, which leads out of it; no path may hold '..'", code="zip-escape"
        )
    if stat.S_IFMT(entry.external_attr >> 16) not in _REGULAR_TYPES:
        raise RejectedFile(
            f"{quoted(name)} in the zip is a symbolic link or a special file; put the file itself in", code="zip-link"
        )
    if entry.flag_bits & _ENCRYPTED:
        raise RejectedFile(
            f"{quoted(name)} in the zip is encrypted; send a zip without a password", code="zip-encrypted"
        )
    if entry.compress_type not in _METHODS:
        raise RejectedFile(
            f"{quoted(name)} in the zip is compressed by method {entry.compress_type}; use store or deflate",
            code="zip-compression",
        )


def _check_overlaps(entries: list[zipfile.ZipInfo]) -> None:
    """Refuse zips whose files share bytes, which is how small ones unpack to huge ones (D. Fifield, WOOT 2019)."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    for entry, following in pairwise(ordered):
        if entry.header_offset + _LOCAL_HEADER_BYTES + entry.compress_size > following.header_offset:
            names = f"{quoted(entry.filename)} and {quoted(following.filename)}"
            raise RejectedFile(f"{names} overlap in the zip; write it once more", code="zip-overlap")


def _check_sizes(files: list[zipfile.ZipInfo], packed: int, limits: ZipLimits) -> None:
    total = sum(each.file_size for each in files)
    if total > limits.total_bytes:
        raise RejectedFile(
            f"the zip claims {total} bytes when unpacked; at most {limits.total_bytes} are taken", code="zip-too-large"
        )
    if total > limits.free_bytes and total > packed * limits.ratio:
        raise RejectedFile(
            f"the zip of {packed} bytes claims {total} bytes when unpacked, more than {limits.ratio} times as many; "
            "if that is real, send it less compressed",
            code="zip-bomb",
        )


def _check_listing_size(path: Path, limits: ZipLimits) -> None:
    """Count the entries before anything builds objects for them."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        tail_start = max(0, size - _END.size - _LONGEST_COMMENT - _LOCATOR_BYTES - _END64.size)
        file.seek(tail_start)
        tail = file.read()
        length, end = _listing_place(tail)
        if length > limits.listing_bytes:
            raise _too_many(limits)
        start = tail_start + end - length
        if start < 0:
            raise _damaged("its listing begins before the file does")
        file.seek(start)
        listing = file.read(length)
    count = position = 0
    while position + _ENTRY_BYTES <= len(listing) and listing.startswith(_ENTRY_SIGNATURE, position):
        name, extra, comment = struct.unpack_from("<3H", listing, position + 28)
        position += _ENTRY_BYTES + name + extra + comment
        count += 1
        if count > limits.entries:
            raise _too_many(limits)


def _listing_place(tail: bytes) -> tuple[int, int]:
    """The listing's length, and where in the tail it ends."""
    end = tail.rfind(_END_SIGNATURE)
    if end < 0 or end + _END.size > len(tail):
        raise _damaged("its end is missing")
    fields = _END.unpack_from(tail, end)
    if fields[4] not in _IN_ZIP64 and fields[5] not in _IN_ZIP64 and fields[6] not in _IN_ZIP64:
        return fields[5], end
    end64 = end - _LOCATOR_BYTES - _END64.size
    has_locator = tail.startswith(_LOCATOR_SIGNATURE, max(0, end - _LOCATOR_BYTES))
    if end64 < 0 or not has_locator or not tail.startswith(_END64_SIGNATURE, end64):
        return fields[5], end
    return _END64.unpack_from(tail, end64)[8], end64


def _too_many(limits: ZipLimits) -> RejectedFile:
    return RejectedFile(f"the zip holds more than {limits.entries} files", code="zip-too-many-files")


def _damaged(why: str) -> RejectedFile:
    return RejectedFile(f"the zip is damaged or cut off ({why}); send it once more", code="zip-damaged")
