"""Child processes: restarted when they die, ended with their parent, and with all that they started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.embedded.process import ChildProcess, Command, next_pause


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def child(tmp_path: Path, script: str, grace: float = 5.0) -> ChildProcess:
    command = Command("child", [sys.executable, "-c", script], dict(os.environ), grace)
    return ChildProcess(command, run_dir=tmp_path, log_dir=tmp_path)


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    process = child(tmp_path, "import time; time.sleep(100)")
    process.start()
    try:
        assert eventually(lambda: process.pid is not None)
        first = process.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: process.pid not in (None, first))
        assert process.early_deaths == 1
    finally:
        process.stop()
    assert process.pid is None


def test_its_output_is_kept(tmp_path: Path) -> None:
    process = child(tmp_path, "print('what went wrong', flush=True); import time; time.sleep(100)")
    process.start()
    try:
        assert eventually(lambda: process.log_tail() == "what went wrong")
    finally:
        process.stop()


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path: Path) -> None:
    script = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']).pid, flush=True);"
        "time.sleep(100)"
    )
    process = child(tmp_path, script, grace=0.5)
    process.start()
    assert eventually(lambda: process.log_tail().isdigit())
    grandchild, pid = int(process.log_tail()), process.pid
    assert pid is not None
    process.stop()
    assert not is_alive(pid)
    assert eventually(lambda: not is_alive(grandchild))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("victim", ["parent", "keeper"])
def test_the_child_ends_when_its_parent_or_its_keeper_is_killed(tmp_path: Path, victim: str) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
from service.embedded.process import ChildProcess, Command
folder = Path({str(tmp_path)!r})
command = Command("child", [sys.executable, "-c", "import time; time.sleep(100)"], dict(os.environ))
process = ChildProcess(command, run_dir=folder, log_dir=folder)
process.start()
print(process._keeper.pid, flush=True)
time.sleep(100)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    keeper = int(parent.stdout.readline())
    pidfile = tmp_path / "child.pid"
    try:
        assert eventually(lambda: pidfile.exists() and pidfile.read_text().strip().isdigit())
        pid = int(pidfile.read_text())
        os.kill(parent.pid if victim == "parent" else keeper, signal.SIGKILL)
        assert eventually(lambda: not is_alive(pid))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert eventually(lambda: not is_alive(keeper))


@pytest.mark.parametrize(
    ("previous", "lived", "expected"),
    [(0.0, 0.1, 1.0), (1.0, 0.1, 2.0), (16.0, 0.1, 30.0), (30.0, 59.0, 30.0), (30.0, 60.0, 1.0)],
)
def test_the_pause_grows_until_the_child_lives_long(previous: float, lived: float, expected: float) -> None:
    assert next_pause(previous, lived) == expected
