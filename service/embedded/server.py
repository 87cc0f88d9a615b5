"""The embedded server: database, broker, API and one worker in one place, as a context manager."""

import logging
import os
import site
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from pydantic import SecretStr

from service.api.access import Access, access_of
from service.app import create_app
from service.domain.errors import InvalidInput, Unavailable
from service.embedded.broker import EmbeddedBroker, embedded_broker
from service.embedded.lock import DataDirLock
from service.embedded.process import MAX_LOG_BYTES, ChildProcess, Command
from service.settings import Settings
from service.store.database import Database

START_SECONDS = 30.0
STOP_SECONDS = 5.0
WORKER_GRACE_SECONDS = 10.0
HOPELESS_DEATHS = 3
"""A worker that died this often right after its start will not come up without help."""

log = logging.getLogger(__name__)


@dataclass
class EmbeddedServer:
    """Everything that one machine needs. Inside the ``with`` block the API answers at ``url``.

    Given settings stay in force: with a broker URL no broker is started.
    ``with_worker`` False: no worker. ``log_to_file`` False: the API's log goes to standard error.
    """

    settings: Settings
    with_worker: bool = True
    log_to_file: bool = True
    worker: ChildProcess | None = field(default=None, init=False)
    broker: EmbeddedBroker | None = field(default=None, init=False)
    url: str = field(default="", init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False, repr=False)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def key(self) -> str | None:
        """The key of this machine, which lies in the data folder; None where it opens nothing."""
        return self.settings.key_file.read_text().strip() if access_of(self.settings) is Access.LOCAL else None

    def worker_problem(self) -> str | None:
        """Why no work will be done, with the end of the worker's output; None while all is well."""
        if self.worker is None or self.worker.early_deaths < HOPELESS_DEATHS:
            return None
        return f"the worker does not start; the end of {self.worker.logfile}:\n{self.worker.log_tail()}"

    def hurry(self) -> None:
        """Stop without waiting for the work in hand; leases make that safe."""
        if self.worker is not None:
            self.worker.kill_now()

    def _start(self, stack: ExitStack) -> None:
        access_of(self.settings)  # raises before anything is started
        data_dir = self.settings.data_dir.expanduser().resolve()
        _make_private(data_dir)
        lock = stack.enter_context(DataDirLock(data_dir))
        listener = stack.enter_context(_listen(self.settings.host, self.settings.port))
        log_dir, run_dir = data_dir / "logs", data_dir / "run"
        for folder in (log_dir, run_dir):
            folder.mkdir(exist_ok=True)
        changes: dict[str, Any] = {"data_dir": data_dir, "port": listener.getsockname()[1]}
        if self.settings.broker_url is None:
            self.broker = stack.enter_context(embedded_broker(data_dir, log_dir=log_dir))
            changes["broker_url"] = self.broker.url
        self.settings = self.settings.model_copy(update=changes)
        _migrate(self.settings)
        if self.with_worker:
            self.worker = _worker(self.settings, run_dir=run_dir, log_dir=log_dir)
            stack.callback(self.worker.stop)
            self.worker.start()
        stack.enter_context(_Api(self.settings, listener, log_dir / "api.log" if self.log_to_file else None))
        self.url = url_of(self.settings.host, self.settings.port)
        lock.announce(self.url)


def url_of(host: str, port: int) -> str:
    """The URL at which this machine reaches a server that listens on ``host``."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _make_private(folder: Path) -> None:
    """Uploaded models are the user's own: nobody else may read a folder that we make."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidInput(f"the data folder {folder} cannot be made: {error.strerror}", field="data_dir") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidInput(f"the data folder {folder} is not writable: choose another one", field="data_dir")


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a port that is taken is known before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        message = f"cannot listen on {host} port {port}: {error.strerror}; choose another port, or 0 for any free one"
        raise InvalidInput(message, field="port") from None
    return listener


def _migrate(settings: Settings) -> None:
    database = Database(settings.resolved_database_url)
    try:
        database.migrate()
    finally:
        database.close()


def _worker(settings: Settings, *, run_dir: Path, log_dir: Path) -> ChildProcess:
    arguments = [sys.executable, "-P", "-m", "workers.main"]
    command = Command("worker", arguments, worker_environment(settings), WORKER_GRACE_SECONDS)
    return ChildProcess(command, run_dir=run_dir, log_dir=log_dir)


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment of a worker that belongs to this server: the same settings but its secrets, the same code."""
    environment = dict(os.environ)
    for name, value in settings.model_dump(mode="json").items():
        variable = f"QUANTSIEVE_{name.upper()}"
        environment.pop(variable, None)
        if value is not None and not isinstance(getattr(settings, name), SecretStr):
            environment[variable] = os.pathsep.join(value) if isinstance(value, list) else str(value)
    root = str(Path(__file__).resolve().parents[2])
    if root not in site.getsitepackages():
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), root]))
    return environment


class _Api:
    """The API, served by a thread of this process."""

    def __init__(self, settings: Settings, listener: socket.socket, logfile: Path | None) -> None:
        config = uvicorn.Config(
            create_app(settings),
            log_config=_logging_to(logfile),
            timeout_graceful_shutdown=int(STOP_SECONDS),
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="api", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not _eventually(lambda: self._server.started or not self._thread.is_alive(), START_SECONDS):
            self._server.should_exit = True
        if not self._server.started:
            raise Unavailable("the API did not start; its log says why (logs/api.log in the data folder)")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(2 * STOP_SECONDS)


def _eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def _logging_to(logfile: Path | None) -> dict[str, Any]:
    handler: dict[str, Any] = {"formatter": "line", "class": "logging.StreamHandler"}
    if logfile is not None:
        rotation = {"filename": str(logfile), "maxBytes": MAX_LOG_BYTES, "backupCount": 1}
        handler |= {"class": "logging.handlers.RotatingFileHandler", **rotation}
    logger = {"handlers": ["main"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
        "handlers": {"main": handler},
        "loggers": {"uvicorn": logger, "service": logger},
    }
