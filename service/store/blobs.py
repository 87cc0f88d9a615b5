"""Files, named by the SHA-256 of their content. Nothing half-written is ever visible.

What every store of files offers; ``folder_blobs`` and ``s3_blobs`` keep them, ``open_blobs`` chooses.
"""

import errno
import hashlib
import os
import re
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.domain.errors import Unavailable
from service.store.blob_writer import Blob, BlobWriter

__all__ = ["Blob", "BlobStore", "BlobWriter", "DamagedBlob", "Readable", "Span", "StorageUnavailable"]

PIECE_BYTES = 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class StorageUnavailable(Unavailable):
    """The files cannot be reached now. Nothing is lost by it: work that needs them waits."""

    code = "storage-unavailable"


class DamagedBlob(Exception):
    """A file's content is not what its name says."""


class Readable(Protocol):
    """A stored file, open for reading."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes more (-1: all that are left), none at the end; raises StorageUnavailable."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True)
class Span:
    """The bytes from ``start`` up to ``stop``, which is not among them."""

    start: int
    stop: int


class BlobStore(ABC):
    """Keeps files. Every method raises StorageUnavailable where the files cannot be reached.

    All that take a ``sha256`` raise ValueError for anything that is not one in hex, so that no text of a stranger ever
    becomes part of a path. Safe to use from several threads and processes at once.
    """

    @abstractmethod
    def writer(self) -> BlobWriter:
        """Begin a new file; use it in a ``with`` block."""

    @abstractmethod
    def open(self, sha256: str, span: Span | None = None) -> Readable:
        """The file's content, or a part that is not empty; raises FileNotFoundError where there is no such file."""

    @abstractmethod
    def local(self, sha256: str) -> AbstractContextManager[Path]:
        """A path on this machine with the file's content, which stays there as long as the block lasts.

        Never write to it. Raises FileNotFoundError where there is no such file.
        """

    @abstractmethod
    def written_before(self, deadline: float) -> list[str]:
        """The files that were last stored before this time (seconds since 1970), by their SHA-256."""

    @abstractmethod
    def delete(self, sha256: str, *, written_before: float | None = None) -> bool:
        """Remove the file if it is there (and was last stored before this time); whether it was."""

    @abstractmethod
    def discard_unfinished(self, deadline: float) -> int:
        """Remove what writers left behind that died; those that wrote after this time may be alive. How many."""

    @abstractmethod
    def check(self) -> None:
        """Raise StorageUnavailable, saying why, where files cannot be stored and read now."""

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

    def read(self, sha256: str) -> bytes:
        """The whole content, which is what the name says; raises FileNotFoundError, DamagedBlob."""
        with closing(self.open(sha256)) as file:
            content = file.read()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DamagedBlob(f"the stored file {sha256} holds something else")
        return content


def checked_name(sha256: str) -> str:
    """The same text; raises ValueError for anything that is not a SHA-256 in hex."""
    if not _SHA256.fullmatch(sha256):
        raise ValueError("not a SHA-256")
    return sha256


def is_name(text: str) -> bool:
    """Whether a text is a SHA-256 in hex."""
    return _SHA256.fullmatch(text) is not None


def no_such_file(sha256: str) -> FileNotFoundError:
    """The error of a store that has no such file."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), sha256)
