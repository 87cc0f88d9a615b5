"""How much of a sweep's processor time is the service's: database, broker, files; the rest is the engine's.

``python -m benchmarks.overhead [network]``: a whole sweep, unit by unit in this process, on PostgreSQL and valkey.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.installation import installed
from benchmarks.networks import Network, here
from service.broker import DATA_QUEUE, Hints
from service.domain.settings import BackendName, Budget, Preprocessing, SweepSettings
from service.store import resources, sweeps
from service.store.database import Database
from service.store.folder_blobs import FolderBlobStore
from service.store.sweeps import NewSweep
from service.store.tables import SweepRow
from tests.workers.in_process import unconfined
from workers.context import WorkerContext
from workers.tasks import work

NETWORKS = ("digits", "cifar10_resnet20")


class Clock:
    """Processor seconds of the threads inside its calls; calls within calls count once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = threading.local()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what this block takes."""
        if getattr(self._inside, "now", False):
            yield
            return
        began, self._inside.now = time.thread_time(), True
        try:
            yield
        finally:
            self._inside.now = False
            self.seconds += time.thread_time() - began


class CountedDatabase(Database):
    """A database whose transactions are counted, what is read and written in them too."""

    clock: Clock

    @contextmanager
    def read(self, tenant: Any = None) -> Iterator[Any]:
        """As of Database."""
        with self.clock.running(), super().read(tenant) as session:
            yield session

    @contextmanager
    def write(self, tenant: Any = None) -> Iterator[Any]:
        """As of Database."""
        with self.clock.running(), super().write(tenant) as session:
            yield session


class CountedHints(Hints):
    """A broker whose hints are counted."""

    clock: Clock

    def publish(self, queue: str, count: int = 1) -> bool:
        """As of Hints."""
        with self.clock.running():
            return super().publish(queue, count)


class CountedBlobs(FolderBlobStore):
    """Files that are counted."""

    clock: Clock

    def put(self, content: bytes) -> Any:
        """As of FolderBlobStore."""
        with self.clock.running():
            return super().put(content)

    def read(self, sha256: str) -> bytes:
        """As of FolderBlobStore."""
        with self.clock.running():
            return super().read(sha256)


def print_overhead() -> None:
    """A line for each network that is on this machine."""
    wanted = sys.argv[1:] or NETWORKS
    for network in here():
        if network.name in wanted:
            with installed() as settings, unconfined(settings.data_dir):  # or the engine's time were another process's
                _print(network, WorkerContext.open(settings, "wrk_bench"))


def _print(network: Network, plain: WorkerContext) -> None:
    clock = Clock()
    database, hints = CountedDatabase(plain.settings.resolved_database_url), CountedHints(plain.settings)
    blobs = CountedBlobs(plain.settings.data_dir / "blobs")
    database.clock = hints.clock = blobs.clock = clock
    context = replace(plain, database=database, hints=hints, blobs=blobs)
    asked = _checked(network, context)
    sweep_id = _created(asked, context)
    clock.seconds, began, wall, shards = 0.0, time.process_time(), time.perf_counter(), 0
    while done := work(context, BackendName.ONNXRUNTIME):
        shards += done
    total, wall = time.process_time() - began, time.perf_counter() - wall
    with database.read() as session:
        state = session.get_one(SweepRow, sweep_id).state
    print(
        f"{network.name}: {state}, {shards} units, {wall:.1f} s; processor {total:.2f} s, of it the service's "
        f"{clock.seconds:.2f} s: {clock.seconds / (total - clock.seconds):.1%} over the engine alone",
        flush=True,
    )


def _checked(network: Network, context: WorkerContext) -> SweepSettings:
    """The files as resources that a worker has looked at."""

    def stored(path: Path, kind: str) -> resources.NewFile:
        return resources.NewFile(path.name, context.blobs.put(path.read_bytes()), kind)

    with context.database.write() as session:
        model, queue = resources.add_model(session, stored(network.onnx, "onnx"))
        dataset, _ = resources.add_dataset(
            session, stored(network.evaluation, "npz"), Preprocessing(), queue=DATA_QUEUE
        )
    for each in (queue, DATA_QUEUE):
        assert each is not None
        while work(context, each):
            pass
    return SweepSettings(model=model.id, dataset=dataset.id, budget=Budget(max_drop=0.01))


def _created(asked: SweepSettings, context: WorkerContext) -> str:
    with context.database.write() as session:
        found = sweeps.subjects_of(session, asked)
        row, _ = sweeps.create(session, NewSweep(asked, found, BackendName.ONNXRUNTIME))
    return row.id


if __name__ == "__main__":
    print_overhead()
