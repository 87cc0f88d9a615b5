"""``quantsieve serve`` as a process: it starts, answers, and leaves nothing behind however it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

START_SECONDS = 60.0


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
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


def descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    left = [pid]
    while left:
        for child in children.get(left.pop(), []):
            found.add(child)
            left.append(child)
    return found


@contextmanager
def served(data_dir: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--port", "0"]
    process = subprocess.Popen([*command, "--data-dir", str(data_dir)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("quantsieve is serving at http://127.0.0.1:"), line
        yield process, line.split()[-1]
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)
        process.stdout.close()


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=["term", "int", "kill"])
def test_nothing_is_left_of_a_server_however_it_ends(tmp_path: Path, number: int) -> None:
    with served(tmp_path) as (process, url):
        assert httpx.get(f"{url}/healthz").status_code == 200
        pidfiles = [tmp_path / "run" / "worker.pid", tmp_path / "broker" / "valkey.pid"]
        assert eventually(lambda: all(each.exists() and each.read_text().strip() for each in pidfiles))
        children = descendants(process.pid)
        assert children >= {int(each.read_text()) for each in pidfiles}
        os.kill(process.pid, number)
        status = process.wait(30)
        assert status == (-9 if number == signal.SIGKILL else 0)
        assert eventually(lambda: not any(is_alive(each) for each in children))
    with served(tmp_path) as (_, url):  # and what is left on disk hinders nobody
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_a_worker_that_is_killed_is_started_again(tmp_path: Path) -> None:
    with served(tmp_path):
        pidfile = tmp_path / "run" / "worker.pid"
        assert eventually(lambda: pidfile.exists() and bool(pidfile.read_text().strip()))
        first = int(pidfile.read_text())
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: pidfile.read_text().strip() not in ("", str(first)))


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with served(tmp_path) as (_, url):
        command = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--port", "0"]
        second = subprocess.run(
            [*command, "--data-dir", str(tmp_path)], capture_output=True, text=True, check=False, timeout=START_SECONDS
        )
        assert second.returncode == 2
        assert "is in use by the server with process id" in second.stderr
        assert url in second.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with served(tmp_path / "first") as (_, url):
        port = url.rpartition(":")[2]
        command = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--port", port]
        second = subprocess.run(
            [*command, "--data-dir", str(tmp_path / "second")], capture_output=True, text=True, check=False, timeout=60
        )
        assert second.returncode == 2
        assert f"cannot listen on 127.0.0.1 port {port}" in second.stderr
