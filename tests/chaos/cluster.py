"""A whole installation that a test may hurt: API, broker, database and two workers, each started again when it dies."""

import contextlib
import os
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

import redis
from sqlalchemy import text

from service.broker import Hints
from service.client import ApiProblem, Client
from service.domain.api_keys import ApiKey
from service.embedded.server import worker_environment
from service.settings import Settings
from service.store.database import Database
from service.store.folder_blobs import FolderBlobStore
from service.store.private_file import private_text
from tests.chaos import audit, skewed
from tests.chaos.disk import Disk, family
from tests.chaos.kept import Keeper, Kept, pool_children, python
from tests.chaos.watch import PATIENCE_SECONDS
from tests.cut_line import Line

LEASE_SECONDS = 2.0
# leases so short may run out on a busy machine without anybody's death; that must not add up to the cap
SHORT = {"lease_seconds": LEASE_SECONDS, "heartbeat_seconds": 0.3, "reconcile_seconds": 0.3, "max_attempts": 8}
RETRY_SECONDS = 0.1
MIGRATING = threading.Lock()
T = TypeVar("T")


class Part(StrEnum):
    """What can be killed. ``child``: the process of a worker that computes; ``parent``: all of a worker but that."""

    WORKER = "worker"
    CHILD = "child"
    PARENT = "parent"
    API = "API"
    BROKER = "broker"
    DATABASE = "database"


class Cluster(ABC):
    """What both set-ups share. Use it in a ``with`` block."""

    name: ClassVar[str]
    worker_count: ClassVar[int] = 2

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.disk = Disk.at(folder / "disk")
        self.temporary = self.disk.folder / "tmp"
        self.temporary.mkdir()
        self.settings = self._settings(
            data_dir=self.disk.folder / "data", port=free_port(), host="127.0.0.1", **self._urls(), **SHORT
        )
        self.keeper = Keeper()
        self.api: Kept
        self.workers: list[Kept] = []
        key = private_text(self.settings.key_file, lambda: ApiKey.generate().text)
        self.client = Client(f"http://127.0.0.1:{self.settings.port}", key=key, timeout=20)

    # what a set-up adds

    @abstractmethod
    def _urls(self) -> dict[str, Any]:
        """Settings that say where broker, database and files are."""

    @abstractmethod
    def start_servers(self) -> None:
        """Start what the API and the workers need."""

    @abstractmethod
    def stop_servers(self) -> None:
        """End it."""

    @abstractmethod
    def after_migration(self) -> None:
        """Make what has to be there before API and workers are started."""

    @abstractmethod
    def mend(self) -> None:
        """Put right what a fault leaves broken until the sweep has ended."""

    @abstractmethod
    def kill_broker(self) -> int:
        """How many processes were killed."""

    @abstractmethod
    def kill_database(self) -> int:
        """How many processes were killed."""

    @abstractmethod
    def jump_clock(self, seconds: float) -> None:
        """Set the database's clock so far ahead of the true time."""

    def worker_settings(self, number: int) -> Settings:
        """Those of one of the workers."""
        return self.settings

    @property
    def line(self) -> Line | None:
        """The network between the first worker and the database; None where there is none."""
        return None

    # from start to end

    def __enter__(self) -> "Cluster":
        try:
            self.start_servers()
            self.database = Database(self.settings.resolved_database_url)
            with MIGRATING:  # Alembic holds its state in a module: one at a time in a process
                self.database.migrate()
            audit.install(self.database)
            self.after_migration()
            self.blobs = FolderBlobStore(Path(str(self.settings.storage)))
            environment = self.environment(self._api_settings())
            self.api = Kept("api", python("tests.chaos.server"), environment, self.folder / "api.log")
            for number in range(self.worker_count):
                self.workers.append(self._worker(number))
            self.keeper.kept += [self.api, *self.workers]
            for each in (self.api, *self.workers):
                each.start()
            self.keeper.start()
            self.retry(lambda: self.client.sweep("swp_none"), ready=lambda problem: problem.status == 404)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.keeper._thread.ident is not None:
            self.keeper.stop()
        for each in self.workers:
            each.send(signal.SIGCONT)
            each.stop(signal.SIGKILL)
        if hasattr(self, "api"):
            self.api.stop()
        if hasattr(self, "database"):
            self.database.close()
        self.stop_servers()
        self.client.close()
        self.disk.close()

    def _api_settings(self) -> Settings:
        return self.settings

    def _worker(self, number: int) -> Kept:
        environment = self.environment(self.worker_settings(number))
        return Kept(f"worker-{number}", python("tests.chaos.worker"), environment, self.folder / f"worker-{number}.log")

    @staticmethod
    def _settings(**given: Any) -> Settings:
        fixed: dict[str, Any] = {"database_url": None, "broker_url": None, "blob_url": None}
        return Settings(**{**fixed, **given})

    def environment(self, settings: Settings) -> dict[str, str]:
        here = {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary)}
        return worker_environment(settings) | here | {skewed.VARIABLE: str(self.folder / "clock")}

    # faults

    def kill(self, part: Part, rng: Random) -> int:
        """``kill -9``; how many were killed: none where what should be killed is not running now."""
        if part is Part.API:
            return int(self.api.send(signal.SIGKILL))
        if part is Part.BROKER:
            return self.kill_broker()
        if part is Part.DATABASE:
            return self.kill_database()
        worker = rng.choice([each for each in self.workers if each.pid is not None] or self.workers)
        if part is Part.CHILD:
            return self.kill_children(worker)
        return int(worker.send(signal.SIGKILL, group=part is Part.WORKER))

    @staticmethod
    def kill_children(worker: Kept) -> int:
        """Of a worker."""
        children = pool_children(worker.pid) if worker.pid is not None else []
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return len(children)

    def worker_of(self, pid: int) -> Kept:
        """The worker with this process id."""
        return next(each for each in self.workers if each.pid == pid)

    @contextmanager
    def without_workers(self) -> Iterator[None]:
        """No worker, but for those that are started by hand, as long as the block lasts."""
        for each in self.workers:
            each.held = True
            each.send(signal.SIGKILL)
        try:
            yield
        finally:
            for each in self.workers:
                each.held = False

    def flush_broker(self) -> None:
        """All messages are gone."""
        with contextlib.suppress(redis.ConnectionError):
            self.redis().flushall()

    def redis(self) -> redis.Redis:
        """A connection to the broker."""
        url = self.settings.resolved_broker_url.replace("redis+socket:", "unix:")
        return redis.Redis.from_url(url, socket_timeout=2)

    def hint(self, queue: str, count: int) -> None:
        """Messages that nobody asked for."""
        Hints(self.settings).publish(queue, count)

    def processes(self) -> list[int]:
        """All that write to the disk."""
        return family(pid for each in (self.api, *self.workers) if (pid := each.pid) is not None)

    # the client's side

    def retry(
        self,
        ask: Callable[[], T],
        *,
        ready: Callable[[ApiProblem], bool] = lambda _: False,
    ) -> T | None:
        """What the API answers, asked again while it, or what it needs, is away; None where a problem is ``ready``."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return ask()
            except ApiProblem as problem:
                if ready(problem):
                    return None
                if problem.status != 503 or time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)

    def count(self, query: str, **values: Any) -> int:
        """A number from the database."""
        with self.database.read() as session:
            return int(session.execute(text(query), values).scalar() or 0)


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def socket_url(path: Path) -> str:
    """The broker URL of a socket."""
    return f"redis+socket://{quote(str(path))}"
