"""The lock on a data folder, so that two servers never share one; it also says where the running server listens."""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from service.domain.errors import Conflict

FILE_NAME = "server.lock"


@dataclass(frozen=True)
class RunningServer:
    """The server that holds a data folder; ``url`` None while it is starting."""

    pid: int
    url: str | None


class DataDirLock:
    """Held as long as the ``with`` block lasts; the system releases it when the process dies, however it dies."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE_NAME
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict(_in_use(self.path), code="data-dir-in-use") from None
        self._descriptor = descriptor
        self.announce(None)
        return self

    def announce(self, url: str | None) -> None:
        """Record where this server listens."""
        assert self._descriptor is not None
        content = json.dumps({"pid": os.getpid(), "url": url}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = None


def running_server(data_dir: Path) -> RunningServer | None:
    """The server that holds this data folder now; None where none does."""
    path = data_dir / FILE_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(descriptor)


def _read(path: Path) -> RunningServer | None:
    try:
        content = json.loads(path.read_text())
        return RunningServer(pid=int(content["pid"]), url=content["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _in_use(path: Path) -> str:
    holder = _read(path)
    who = f" by the server with process id {holder.pid}" if holder else ""
    where = f" at {holder.url}" if holder and holder.url else ""
    return (
        f"the data folder {path.parent} is in use{who}{where}: "
        "stop that server, or choose another folder with --data-dir or QUANTSIEVE_DATA_DIR"
    )
