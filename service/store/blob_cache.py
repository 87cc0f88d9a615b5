"""Copies of stored files on this machine's disk, for what must be opened by a path. Any number of processes share it.

A copy is verified before it is visible. All copies together never take more than a limit: those that were used longest
ago go first, never one that is in use. Whoever uses a copy holds a shared ``flock`` on it, and whoever would remove it
must get an exclusive one, so that a process that dies lets go of what it held.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO

from service.domain.errors import Unavailable
from service.store.blob_writer import Blob
from service.store.blobs import DamagedBlob, StorageUnavailable

Fetch = Callable[[BinaryIO], None]
"""Fills an empty file with a blob's content; it may write in any order."""


class CacheFull(StorageUnavailable):
    """What is in use leaves no room for the file now."""

    code = "cache-full"


class CacheTooSmall(Unavailable):
    """The file alone is larger than all copies together may be."""

    code = "cache-too-small"


class BlobCache:
    """A folder of copies. ``limit``: the most bytes that all of them may take, those on their way in included."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._copies, self._arriving, self._locks = folder / "copies", folder / "arriving", folder / "locks"
        for each in (self._copies, self._arriving, self._locks):
            each.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def hold(self, sha256: str, size_of: Callable[[str], int], fetch: Fetch) -> Iterator[Path]:
        """The path of a copy that stays there as long as the block lasts; fetched where there is none yet.

        One process fetches, others wait for it. Raises what ``size_of`` and ``fetch`` raise, CacheFull where what is
        in use leaves no room, CacheTooSmall, and DamagedBlob where what came is not what the name says.
        """
        descriptor = self._open(sha256)
        while descriptor is None:
            with self._locked(sha256[:2]):
                descriptor = self._open(sha256)
                if descriptor is None:
                    self._fetch(Blob(sha256, size_of(sha256)), fetch)
                    descriptor = self._open(sha256)  # None where it was evicted in this very moment
        try:
            yield self._copies / sha256
        finally:
            os.close(descriptor)

    def adopt(self, path: Path, blob: Blob) -> bool:
        """Take over a file of this file system that is known to be this blob, if there is room; whether it did."""
        if (self._copies / blob.sha256).exists():
            return False
        try:
            with self._locked("room"):
                self._make_room(blob.size)
                os.replace(path, self._copies / blob.sha256)
        except (CacheFull, CacheTooSmall):
            return False
        return True

    def drop(self, sha256: str) -> None:
        """Forget a copy. Whoever holds it may read it to the end."""
        (self._copies / sha256).unlink(missing_ok=True)

    def _open(self, sha256: str) -> int | None:
        """A descriptor that keeps the copy from being evicted; None where there is no copy."""
        try:
            descriptor = os.open(self._copies / sha256, os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink == 0:  # it was evicted between the two calls
            os.close(descriptor)
            return None
        os.utime(descriptor)  # the time of its last use
        return descriptor

    def _fetch(self, blob: Blob, fetch: Fetch) -> None:
        path = self._arriving / secrets.token_hex(16)
        with self._locked("room"):
            self._make_room(blob.size)
            file = path.open("x+b")
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed: its writer lives
            file.truncate(blob.size)  # the room is taken from now on
        try:
            with file:
                fetch(file)
                _verify(file, blob)
                file.flush()
                os.fsync(file.fileno())
                os.replace(path, self._copies / blob.sha256)
        finally:
            path.unlink(missing_ok=True)

    def _make_room(self, needed: int) -> None:
        """Evict until so many bytes fit in; raises CacheTooSmall, or CacheFull after evicting what it could."""
        if needed > self.limit:
            raise CacheTooSmall(
                f"a file of {needed} bytes does not fit into the cache of files, which may take {self.limit}: "
                "set QUANTSIEVE_BLOB_CACHE_BYTES higher"
            )
        taken = sum(_size(path) for path in self._arriving.iterdir() if not _remove_unless_held(path))
        copies = sorted(self._copies.iterdir(), key=_last_used)
        taken += sum(_size(path) for path in copies)
        for path in copies:
            if taken + needed <= self.limit:
                return
            size = _size(path)
            if _remove_unless_held(path):
                taken -= size
        if taken + needed > self.limit:
            raise CacheFull(
                f"the cache of files may take {self.limit} bytes, {taken} are in use, and {needed} more are "
                "needed: set QUANTSIEVE_BLOB_CACHE_BYTES higher"
            )

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self._locks / name).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _verify(file: BufferedRandom, blob: Blob) -> None:
    file.flush()
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size != blob.size or hashlib.file_digest(file, "sha256").hexdigest() != blob.sha256:
        raise DamagedBlob(f"the stored file {blob.sha256} holds something else")


def _remove_unless_held(path: Path) -> bool:
    """Whether nobody held it, so that it is gone now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            return True
    finally:
        os.close(descriptor)
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _last_used(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
