"""Files that no row names any more: of deleted resources and sweeps, and of processes that died on the way."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import CompoundSelect, select, union
from sqlalchemy.orm import Session

from service.store.blobs import BlobStore
from service.store.database import Database
from service.store.tables import ArtifactRow, CalibrationRow, ConversionFileRow, DatasetRow, ModelRow, UnitRow

# a file is stored before its row is: one that is younger may still get its row (storing the same bytes again renews it)
GRACE_SECONDS = 3600.0


def remove_leftovers(database: Database, blobs: BlobStore, *, older_than: float = GRACE_SECONDS) -> int:
    """Delete the files that nothing names and that were last written ``older_than`` seconds ago; how many."""
    deadline = time.time() - older_than
    old = [path for path in _files(blobs) if _written_before(path, deadline)]
    if not old:
        return 0
    with database.read() as session:
        named = _named(session)
    unused = [path for path in old if path.name not in named]
    for path in unused:
        path.unlink(missing_ok=True)
    return len(unused)


def _files(blobs: BlobStore) -> Iterator[Path]:
    for folder in blobs.folder.iterdir():
        if folder.is_dir():
            yield from folder.iterdir()


def _written_before(path: Path, deadline: float) -> bool:
    try:
        return path.stat().st_mtime < deadline
    except FileNotFoundError:
        return False


def _named(session: Session) -> set[str]:
    results = select(UnitRow.result_sha256).where(UnitRow.result_sha256.is_not(None))
    tables = (ModelRow, DatasetRow, CalibrationRow, ArtifactRow, ConversionFileRow)
    query: CompoundSelect[Any] = union(*(select(each.sha256) for each in tables), results)
    return set(session.scalars(query))
