"""Runs one command and ends it when the parent goes, however the parent went. Standard library only.

Started as ``python -I keeper.py PIDFILE GRACE_SECONDS COMMAND...`` with a pipe on its standard input whose other end
the parent holds. End of file there means that the parent stopped it or died: the command gets SIGTERM, and after
the grace period its whole process group is killed. The pid file is locked as long as any process of the command
lives, so a second keeper of the same pid file waits until the first one's processes are gone.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

POLL_SECONDS = 0.1
PR_SET_PDEATHSIG = 1
EX_TEMPFAIL = 75


def main(arguments: list[str]) -> int:
    """Keep the command running until it ends or the parent goes; its exit status."""
    pidfile, grace, command = arguments[0], float(arguments[1]), arguments[2:]
    stopped = _Stop()
    descriptor = os.open(pidfile, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _lock(descriptor, stopped):
        return EX_TEMPFAIL
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, process_group=0, pass_fds=(descriptor,), preexec_fn=die_with_parent()
    )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{child.pid}\n".encode(), 0)
    while child.poll() is None and not stopped.wait(POLL_SECONDS):
        pass
    status = _end(child, grace)
    os.ftruncate(descriptor, 0)
    return status if status >= 0 else 128 - status


class _Stop:
    """Whether to stop: the pipe from the parent has ended, or a signal came."""

    def __init__(self) -> None:
        self._signalled = False
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._signalled = True

    def wait(self, seconds: float) -> bool:
        """Wait for at most that long; whether to stop."""
        readable, _, _ = select.select([0], [], [], seconds)
        return self._signalled or (bool(readable) and os.read(0, 1024) == b"")


def _lock(descriptor: int, stopped: _Stop) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if stopped.wait(POLL_SECONDS):
                return False


def _end(child: subprocess.Popen[bytes], grace: float) -> int:
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
    # the group may hold pool processes that outlived their parent
    kill_group(child.pid)
    return child.wait()


def kill_group(pid: int) -> None:
    """Kill every process of the command's group that is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def die_with_parent() -> Callable[[], None] | None:
    """What the child runs before the command, so that it ends even if its parent is killed; Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask_for_sigterm() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask_for_sigterm


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
