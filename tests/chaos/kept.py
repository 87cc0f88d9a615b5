"""Processes that are started again when they die, as an init system does."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOOK_SECONDS = 0.05
PAUSE_SECONDS = 0.3


@dataclass
class Kept:
    """One command and its process, which leads a process group of its own. ``user``: who runs it."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    user: str | None = None
    held: bool = False
    """Not to be started again now."""
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it; what it says goes to the end of its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
                cwd="/",
            )

    @property
    def pid(self) -> int | None:
        """None while it is not running."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def send(self, number: signal.Signals, *, group: bool = True) -> bool:
        """Send a signal to it (and to all that it started); whether it was there."""
        pid = self.pid
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(pid, number)
        if number is signal.SIGKILL and self.process is not None:
            self.process.wait()
        return True

    def stop(self, number: signal.Signals = signal.SIGTERM, grace: float = 10.0) -> None:
        """End it; kill what is left of its group."""
        self.held = True
        if self.process is None:
            return
        leader = self.process.pid
        self.send(number, group=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
        self.process.wait()


@dataclass
class Keeper:
    """Starts the processes again that died, until it is stopped."""

    kept: list[Kept] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="keeper", daemon=True)
        self._due: dict[str, float] = {}

    def start(self) -> None:
        """Begin to look after them."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; the processes go on."""
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            for each in self.kept:
                if each.held or each.pid is not None:
                    self._due.pop(each.name, None)
                elif time.monotonic() > self._due.setdefault(each.name, time.monotonic() + PAUSE_SECONDS):
                    each.start()


def pool_children(pid: int) -> list[int]:
    """The processes of a worker that compute (Linux)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(each) for each in children if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]
    except OSError:
        return []


def python(module: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-P", "-m", module]
