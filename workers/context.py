"""What a worker holds while it lives: the store, the files, the broker, its name and its settings."""

import os
import socket
from dataclasses import dataclass

from service.broker import Hints
from service.settings import Settings
from service.store.blobs import BlobStore
from service.store.database import Database


@dataclass(frozen=True)
class WorkerContext:
    """The outside world of a worker. ``worker_id`` names the process in leases."""

    settings: Settings
    database: Database
    blobs: BlobStore
    hints: Hints
    worker_id: str

    @classmethod
    def open(cls, settings: Settings) -> "WorkerContext":
        """Connect to what the settings name; reads no table yet."""
        return cls(
            settings=settings,
            database=Database(settings.resolved_database_url),
            blobs=BlobStore(settings.resolved_blob_dir),
            hints=Hints(settings),
            worker_id=f"{socket.gethostname()}:{os.getpid()}",
        )
