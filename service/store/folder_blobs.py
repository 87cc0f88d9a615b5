"""Files in a folder of this machine (or one that all machines mount)."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.store.blob_writer import BlobWriter, discard_old, written_before
from service.store.blobs import Blob, BlobStore, Readable, Span, StorageUnavailable, checked_name, is_name, no_such_file


class FolderBlobStore(BlobStore):
    """A folder of files named by their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming = folder / "incoming"
        self._lock = folder / ".lock"
        self.incoming.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the file lies, or would lie."""
        return self.folder / checked_name(sha256)[:2] / sha256

    def writer(self) -> BlobWriter:
        """Begin a new file; use it in a ``with`` block."""
        return BlobWriter(self.incoming, self._keep)

    def _keep(self, path: Path, blob: Blob) -> None:
        _fsync(path)
        target = self.path(blob.sha256)
        target.parent.mkdir(exist_ok=True)
        with self._entry(fcntl.LOCK_SH):
            os.replace(path, target)
        _fsync(target.parent)

    def open(self, sha256: str, span: Span | None = None) -> Readable:
        """The file's content, or a part."""
        file = self.path(sha256).open("rb")
        return file if span is None else _Part.of(file, span)

    @contextmanager
    def local(self, sha256: str) -> Iterator[Path]:
        """The file's own path."""
        path = self.path(sha256)
        if not path.exists():
            raise no_such_file(sha256)
        yield path

    def written_before(self, deadline: float) -> list[str]:
        """The files last stored before this time."""
        files = (path for path in self.folder.glob("*/*") if is_name(path.name))
        return [path.name for path in files if written_before(path, deadline)]

    def delete(self, sha256: str, *, written_before: float | None = None) -> bool:
        """Remove the file."""
        path = self.path(sha256)
        try:
            with self._entry(fcntl.LOCK_EX):
                if written_before is not None and path.stat().st_mtime >= written_before:
                    return False
                path.unlink()
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _entry(self, kind: int) -> Iterator[None]:
        """Nobody stores a file between the look at its age and its deletion, on any machine that mounts the folder.

        By a lock on a file: over NFS a folder's is known to its own machine alone (flock(2)).
        """
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)

    def discard_unfinished(self, deadline: float) -> int:
        """Remove what dead writers left."""
        return discard_old(self.incoming, deadline)

    def check(self) -> None:
        """Whether the folder is there and can be written to."""
        if not os.access(self.incoming, os.R_OK | os.W_OK | os.X_OK):
            raise StorageUnavailable("the folder of the files is not there, or cannot be written to")


@dataclass
class _Part:
    """The next ``left`` bytes of a file."""

    file: BinaryIO
    left: int

    @classmethod
    def of(cls, file: BinaryIO, span: Span) -> "_Part":
        file.seek(span.start)
        return cls(file, span.stop - span.start)

    def read(self, size: int = -1, /) -> bytes:
        content = self.file.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(content)
        return content

    def close(self) -> None:
        self.file.close()


def _fsync(path: Path) -> None:
    """Make a file's content, or a folder's entries, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
