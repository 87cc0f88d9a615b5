"""Files that no row names any more: of deleted resources and sweeps, and of processes that died on the way."""

import time
from typing import Any

from sqlalchemy import CompoundSelect, select, union
from sqlalchemy.orm import Session

from service.store.blobs import BlobStore
from service.store.database import Database
from service.store.tables import ArtifactRow, CalibrationRow, ConversionFileRow, DatasetRow, ModelRow, UnitRow

# a file is stored before its row is: one that is younger may still get its row (storing the same bytes again renews it)
GRACE_SECONDS = 3600.0


def remove_leftovers(database: Database, blobs: BlobStore, *, older_than: float = GRACE_SECONDS) -> int:
    """Delete the files that nothing names and that were last written ``older_than`` seconds ago; how many.

    Raises StorageUnavailable; what is left then is found the next time.
    """
    deadline = time.time() - older_than
    unfinished = blobs.discard_unfinished(deadline)
    # asked again at the deletion: the same bytes may have been stored once more since
    return unfinished + sum(blobs.delete(each, written_before=deadline) for each in _unnamed(database, blobs, deadline))


def leftovers(database: Database, blobs: BlobStore, *, older_than: float = GRACE_SECONDS) -> list[str]:
    """The files that would be deleted now, by their SHA-256; raises StorageUnavailable."""
    return _unnamed(database, blobs, time.time() - older_than)


def missing(database: Database, blobs: BlobStore) -> list[str]:
    """The files that rows name and that are not there, by their SHA-256; raises StorageUnavailable.

    The rows are read first: what is deleted meanwhile may be missing, what comes in may not.
    """
    with database.read() as session:
        named = _named(session)
    return sorted(named.difference(blobs.written_before(float("inf"))))


def _unnamed(database: Database, blobs: BlobStore, deadline: float) -> list[str]:
    # the files first: one that is stored and named after the rows were read would seem to be nobody's
    old = blobs.written_before(deadline)
    if not old:
        return []
    with database.read() as session:
        named = _named(session)
    return [each for each in old if each not in named]


def _named(session: Session) -> set[str]:
    results = select(UnitRow.result_sha256).where(UnitRow.result_sha256.is_not(None))
    tables = (ModelRow, DatasetRow, CalibrationRow, ArtifactRow, ConversionFileRow)
    query: CompoundSelect[Any] = union(*(select(each.sha256) for each in tables), results)
    return set(session.scalars(query))
