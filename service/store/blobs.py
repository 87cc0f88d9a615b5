"""Files, named by the SHA-256 of their content. Nothing half-written is ever visible."""

import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

PIECE_BYTES = 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """A stored file."""

    sha256: str
    size: int


class BlobWriter:
    """A file on its way in. Leaving the ``with`` block without ``commit`` leaves nothing behind."""

    def __init__(self, store: "BlobStore") -> None:
        self._store = store
        self.path = store.incoming / secrets.token_hex(16)
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.size = 0

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

    def commit(self) -> Blob:
        """Make the file durable, then visible under its hash."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        blob = Blob(self._hash.hexdigest(), self.size)
        target = self._store.path(blob.sha256)
        target.parent.mkdir(exist_ok=True)
        os.replace(self.path, target)
        _fsync_folder(target.parent)
        return blob

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()
        self.path.unlink(missing_ok=True)


class BlobStore:
    """A folder of files named by their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming = folder / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    def writer(self) -> BlobWriter:
        """Begin a new file; use it in a ``with`` block."""
        return BlobWriter(self)

    def put(self, content: bytes) -> Blob:
        """Store bytes."""
        with self.writer() as writer:
            writer.write(content)
            return writer.commit()

    def put_file(self, path: Path) -> Blob:
        """Store a copy of a file."""
        with path.open("rb") as source, self.writer() as writer:
            while piece := source.read(PIECE_BYTES):
                writer.write(piece)
            return writer.commit()

    def path(self, sha256: str) -> Path:
        """The file's path; raises ValueError for anything that is not a SHA-256 in hex."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError("not a SHA-256")
        return self.folder / sha256[:2] / sha256

    def read(self, sha256: str) -> bytes:
        """The whole content; raises FileNotFoundError where there is none."""
        return self.path(sha256).read_bytes()

    def delete(self, sha256: str) -> None:
        """Remove the file if it is there."""
        self.path(sha256).unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
