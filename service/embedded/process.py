"""A child process that is started again when it dies unexpectedly, and that never outlives this process."""

import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.embedded import keeper

MAX_LOG_BYTES = 10_000_000
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
TAIL_BYTES = 2_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Command:
    """What to run: ``environment`` is complete, ``grace`` is the time in seconds between SIGTERM and SIGKILL."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    grace: float = 10.0


def next_pause(previous: float, lived: float) -> float:
    """How many seconds to wait before the next start: doubled each time, from the start again after a healthy life."""
    if lived >= HEALTHY_SECONDS:
        return FIRST_PAUSE_SECONDS
    return min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, 2 * previous))


class ChildProcess:
    """A command under a keeper. ``run_dir`` holds its pid file, ``log_dir`` its output."""

    def __init__(self, command: Command, *, run_dir: Path, log_dir: Path) -> None:
        self.command = command
        self.pidfile = run_dir / f"{command.name}.pid"
        self.logfile = log_dir / f"{command.name}.log"
        self.early_deaths = 0
        self._stop = threading.Event()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, name=f"keep-{command.name}", daemon=True)

    def start(self) -> None:
        """Start it; it may need a moment more until it is ready."""
        self._rotate_log()
        self._keeper = self._spawn()
        self._thread.start()

    def stop(self) -> None:
        """End it and everything that it started; returns when they are gone."""
        self._stop.set()
        if self._keeper is not None:
            self._close_pipe(self._keeper)
        if self._thread.ident is not None:
            self._thread.join()

    def kill_now(self) -> None:
        """Do not wait for the grace period any longer."""
        pid = self.pid
        if pid is not None:
            keeper.kill_group(pid)

    @property
    def pid(self) -> int | None:
        """The command's process id; None while it is not running."""
        try:
            return int(self.pidfile.read_text())
        except (OSError, ValueError):
            return None

    @property
    def alive(self) -> bool:
        """Whether its keeper runs."""
        return self._keeper is not None and self._keeper.poll() is None

    def log_tail(self) -> str:
        """The end of its output."""
        try:
            return self.logfile.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = self.command
        script = [sys.executable, "-I", keeper.__file__, str(self.pidfile), str(command.grace)]
        with self.logfile.open("ab") as output:
            return subprocess.Popen(
                [*script, *command.arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(command.environment),
                start_new_session=True,
            )

    def _supervise(self) -> None:
        pause = 0.0
        while self._keeper is not None:
            started = time.monotonic()
            status = self._keeper.wait()
            self._close_pipe(self._keeper)
            if self._stop.is_set():
                return
            lived = time.monotonic() - started
            self.early_deaths = 0 if lived >= HEALTHY_SECONDS else self.early_deaths + 1
            pause = next_pause(pause, lived)
            log.warning("%s ended with status %d; starting it again in %.0f s", self.command.name, status, pause)
            if self._stop.wait(pause):
                return
            self._keeper = self._spawn()
            if self._stop.is_set():  # stop() may have closed the pipe of the previous keeper only
                self._close_pipe(self._keeper)

    @staticmethod
    def _close_pipe(process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _rotate_log(self) -> None:
        if self.logfile.exists() and self.logfile.stat().st_size > MAX_LOG_BYTES:
            self.logfile.replace(self.logfile.with_suffix(".log.1"))
