"""``quantsieve run`` on the example, with a server of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
SCRIPT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from service.cli import main; main()"
REPORTS = {"report.html", "report.json", "layers.csv", "fallback_layers.json"}
EXPORTS = {"trtexec.txt", "polygraphy_script.py", "onnxruntime.json", "names.json"}
DEPLOYED = {"mixed.onnx", "mixed.json", "calibration.cache"}


def start(tmp_path: Path, *arguments: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QUANTSIEVE_")}
    environment["QUANTSIEVE_DATA_DIR"] = str(tmp_path / "data")
    command = [sys.executable, "-c", SCRIPT, "run", str(DIGITS / "digits.onnx"), str(DIGITS / "eval.npz")]
    return subprocess.Popen(
        [*command, "--calibration-data", str(DIGITS / "calib.npz"), "--out", str(tmp_path / "out"), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_prints_the_decision_and_writes_every_file(tmp_path: Path) -> None:
    process = start(tmp_path, "--max-drop", "0.01")
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert "Fallback layers (" in output
    assert "Verified drop: " in output
    assert {each.name for each in (tmp_path / "out").iterdir()} == REPORTS | EXPORTS | DEPLOYED


def test_a_sweep_that_fails_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    process = start(tmp_path, "--include", "nothing*")
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "include: the pattern 'nothing*' matches no layer" in errors.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_interrupted_run_is_cancelled_and_leaves_no_process(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert process.stderr is not None
    while "measure" not in (line := process.stderr.readline()):
        assert line, "the run ended early"
    worker = int((tmp_path / "data" / "run" / "worker.pid").read_text())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "is cancelled" in errors
    assert not Path(f"/proc/{worker}").exists()
