"""Results that are kept by the name of their content: each lies in the file of a finished unit."""

from service.store.blobs import BlobStore
from service.store.database import Database
from service.store.units import results_by_content


class KeptResults:
    """Finds what any unit left under a key, and stores what the unit at hand will leave.

    ``key`` and ``sha256``: of what was kept last, for the unit's row; None where nothing was.
    """

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database, self._blobs = database, blobs
        self.key: str | None = None
        self.sha256: str | None = None

    def find(self, key: str) -> bytes | None:
        """The newest; None where there is none."""
        with self._database.read() as session:
            hashes = results_by_content(session, key)
        return self._blobs.read(hashes[0]) if hashes else None

    def keep(self, key: str, content: bytes) -> None:
        """Store the file; its unit's row is to name it."""
        self.key, self.sha256 = key, self._blobs.put(content).sha256
