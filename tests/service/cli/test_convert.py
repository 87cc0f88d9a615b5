"""``quantsieve convert`` and ``lint-qdq``: they run in a process of the workers, whose messages and status are ours."""

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from service.cli.root import app

MODEL = """<ir_version: 8, opset_import: ["" : 18]>
g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> { [mm] y = MatMul(x, w) }"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTSIEVE_DATA_DIR", str(tmp_path / "data"))
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "-model.onnx")
    (tmp_path / "some.cache").write_bytes(b"TRT-8510-MinMaxCalibration\nx: 3d4ccccd\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return CliRunner().invoke(app, arguments).exit_code


def test_there_and_back_and_linted_in_another_process(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # a name that begins with a dash is a file all the same
    assert run("convert", "-o", "q.onnx", "--", "-model.onnx", "some.cache") == 0
    assert "1 layers in int8" in capfd.readouterr().out
    back = ["--to-cache", "back.cache", "--algorithm", "MinMaxCalibration", "--tensorrt-version", "8510"]
    assert run("convert", "q.onnx", *back, "-o", "plain.onnx") == 0
    assert (folder / "back.cache").read_bytes() == (folder / "some.cache").read_bytes()
    assert run("lint-qdq", "q.onnx", "--json") == 0
    assert capfd.readouterr().out.rstrip().endswith("[]")


def test_violations_and_errors_keep_their_status(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = """g (float[n,2] x) => (float[n,2] y) <float s = {0.5}, int8 z = {0}>
    { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"""
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]>{body}'), folder / "bad.onnx")
    assert run("lint-qdq", "bad.onnx") == 1
    assert "output-pair" in capfd.readouterr().out
    assert run("convert", "nowhere.onnx", "some.cache", "-o", "q.onnx") == 2
    assert capfd.readouterr().err.strip() == "error: MODEL: there is no file nowhere.onnx"


def test_the_command_line_itself_loads_no_tensor_library() -> None:
    script = "import sys, service.cli.root; print([m for m in sys.modules if m.split('.')[0] in {'onnx', 'workers'}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
