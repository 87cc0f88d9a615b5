"""A worker for each GPU, with a program in the place of nvidia-smi, and one in the place of the worker."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.cli.gpu_workers import gpus_of
from service.domain.errors import InvalidInput
from tests.service.cli.test_serve import eventually, is_alive

WORKER = """
import os, pathlib, signal, sys, time
def end(number, frame):
    folder.joinpath(f"{gpu}.ended").write_text(str(number)); sys.exit(0)
folder, gpu = pathlib.Path(sys.argv[1]), os.environ["CUDA_VISIBLE_DEVICES"]
signal.signal(signal.SIGTERM, end)
folder.joinpath(f"{gpu}.{os.getpid()}").write_text(os.environ["QUANTSIEVE_DEVICE"])
time.sleep(60)
"""
SUPERVISOR = """
import os, sys
from service.cli.gpu_workers import GpuWorkers, gpus_of
GpuWorkers([sys.executable, "-c", sys.argv[1], sys.argv[2]], gpus_of("all"), os.environ).run()
"""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho 0\necho 1\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_what_is_asked_for_must_be_there(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus_of("all") == ["0", "1"]
    assert gpus_of("1") == ["1"]
    for wrong in ("2", "0,0", "", "0;1"):
        with pytest.raises(InvalidInput, match="give all, or each once of 0,1"):
            gpus_of(wrong)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus_of("all") == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InvalidInput, match="no GPU on this machine"):
        gpus_of("all")


@contextmanager
def supervised(worker: str, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A supervisor of this program; nothing is left of it and its workers."""
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, worker, str(folder)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for each in started(folder):
            if is_alive(pid_of(each)):
                os.kill(pid_of(each), signal.SIGKILL)


def started(folder: Path, gpu: str = "[01]") -> list[Path]:
    return [*folder.glob(f"{gpu}.[0-9]*")]


def pid_of(path: Path) -> int:
    return int(path.suffix[1:])


def ended(folder: Path) -> set[str]:
    return {each.name for each in folder.glob("*.ended")}


def test_each_gpu_has_a_worker_that_is_started_again_and_ends_with_the_others(two_gpus: None, tmp_path: Path) -> None:
    with supervised(WORKER, tmp_path) as process:
        assert eventually(lambda: len(started(tmp_path, "0")) == len(started(tmp_path, "1")) == 1)
        assert eventually(lambda: started(tmp_path, "0")[0].read_text() == "cuda:0")
        os.kill(pid_of(started(tmp_path, "0")[0]), signal.SIGKILL)
        assert eventually(lambda: len(started(tmp_path, "0")) == 2)
        assert len(started(tmp_path, "1")) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert ended(tmp_path) == {"0.ended", "1.ended"}
        assert not any(is_alive(pid_of(each)) for each in started(tmp_path))


def test_a_second_signal_reaches_workers_that_did_not_end_at_the_first(two_gpus: None, tmp_path: Path) -> None:
    with supervised(WORKER.replace("sys.exit(0)", "None"), tmp_path) as process:
        assert eventually(lambda: len(started(tmp_path)) == 2)
        process.send_signal(signal.SIGTERM)
        assert eventually(lambda: len(ended(tmp_path)) == 2)
        process.send_signal(signal.SIGINT)  # which these workers do not catch: KeyboardInterrupt ends them
        assert process.wait(30) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told on Linux alone")
def test_workers_end_with_a_supervisor_that_is_killed(two_gpus: None, tmp_path: Path) -> None:
    with supervised(WORKER, tmp_path) as process:
        assert eventually(lambda: len(started(tmp_path)) == 2)
        process.kill()
        assert eventually(lambda: ended(tmp_path) == {"0.ended", "1.ended"})
