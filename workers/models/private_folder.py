"""Temporary folders of a worker, which do not outlive it for long, however it ended."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER_PREFIX = "quantsieve-work-"
STALE_SECONDS = 3600.0


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that nobody else can read, until the end of the block. Those of processes that were killed go first."""
    remove_stale(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # it says that the folder is in use, for as long as we live
            yield Path(name)
        finally:
            os.close(descriptor)


def remove_stale(parent: Path, *, prefix: str = FOLDER_PREFIX, older_than: float = STALE_SECONDS) -> None:
    """Remove those in ``parent`` that nobody uses; one that is younger (seconds) may be about to be used."""
    for folder in parent.glob(f"{prefix}*"):
        try:
            if folder.is_symlink() or folder.stat().st_mtime > time.time() - older_than:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # gone, or another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use
            continue
        finally:
            os.close(descriptor)
