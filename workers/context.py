"""What a worker holds while it lives: the store, the files, the broker, its name and its settings."""

from dataclasses import dataclass, field
from functools import cached_property

from service.broker import Hints
from service.settings import Settings
from service.store.blobs import BlobStore
from service.store.database import Database
from service.store.open_blobs import open_blobs
from workers.backends.protocol import PluginLibraries
from workers.data.read_ahead import ReadAhead
from workers.sandbox.policy import Policy
from workers.sandbox.sandbox import Sandbox, sandbox


@dataclass(frozen=True)
class WorkerContext:
    """The outside world of a worker, and samples that it keeps in memory.

    ``worker_id`` owns its leases; all processes of one worker share it.
    """

    settings: Settings
    database: Database
    blobs: BlobStore
    hints: Hints
    worker_id: str
    read_ahead: ReadAhead = field(default_factory=ReadAhead)

    @property
    def sandbox(self) -> Sandbox:
        """What opens the files of strangers."""
        return sandbox(self._policy)

    @cached_property
    def _policy(self) -> Policy:
        return Policy.of(self.settings)

    @property
    def libraries(self) -> PluginLibraries:
        """The plugin libraries that are set for this worker."""
        return PluginLibraries(self.settings.custom_op_libraries, self.settings.tensorrt_plugin_libraries)

    @classmethod
    def open(cls, settings: Settings, worker_id: str) -> "WorkerContext":
        """Connect to what the settings name; reads no table yet."""
        return cls(
            settings=settings,
            database=Database(settings.resolved_database_url),
            blobs=open_blobs(settings),
            hints=Hints(settings),
            worker_id=worker_id,
        )
