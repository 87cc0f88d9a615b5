"""A file on its way into a store: written to a folder of this machine and hashed, so that it can be inspected."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self


@dataclass(frozen=True)
class Blob:
    """A stored file; ``size`` in bytes."""

    sha256: str
    size: int


class BlobWriter:
    """A file on its way in. Leaving the ``with`` block without ``commit`` leaves nothing behind.

    ``keep`` is given the finished file and its name; it may move the file away.
    """

    def __init__(self, folder: Path, keep: Callable[[Path, Blob], None]) -> None:
        self.path = folder / secrets.token_hex(16)
        self.size = 0
        self._keep = keep
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        self._file = self.path.open("xb")
        return self

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        assert self._file is not None
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def flush(self) -> Path:
        """The path at which all that was written so far can be inspected."""
        assert self._file is not None
        self._file.flush()
        return self.path

    @property
    def blob(self) -> Blob:
        """What the file would be stored as, by what was written so far."""
        return Blob(self._hash.hexdigest(), self.size)

    def commit(self) -> Blob:
        """Make the file durable, then visible under its hash; raises StorageUnavailable, and then it is not there."""
        blob = self.blob
        self._keep(self.flush(), blob)
        return blob

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()
        self.path.unlink(missing_ok=True)


def discard_old(folder: Path, deadline: float) -> int:
    """Remove the files of writers that were last written before this time (seconds since 1970); how many."""
    old = [path for path in folder.iterdir() if written_before(path, deadline)]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def written_before(path: Path, deadline: float) -> bool:
    """Whether the file is there and was last written before this time."""
    try:
        return path.stat().st_mtime < deadline
    except FileNotFoundError:
        return False
