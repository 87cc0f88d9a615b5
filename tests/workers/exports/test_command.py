"""The commands over files: what they print, write, and end with."""

import json
import zipfile
from pathlib import Path

import onnx
import pytest

from tests.workers import plugins
from tests.workers.exports.graphs import saved
from workers.exports.command import main

BODY = """g (float[n,2,4,4] x) => (float[n,2,4,4] y)
<float[2,2,1,1] w = {1,2,3,4}, float[2,2,1,1] v = {4,3,2,-9}>
{ [first] a = Conv(x, w) [act] r = Relu(a) [second] y = Conv(r, v) }"""
CACHE = b"TRT-8510-EntropyCalibration2\nx: 3d4ccccd\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    saved(tmp_path, BODY, "model.onnx")
    (tmp_path / "some.cache").write_bytes(CACHE + b"r: 3dcccccd\n")
    (tmp_path / "part.cache").write_bytes(CACHE + b"elsewhere: 3dcccccd\n")
    (tmp_path / "bad.cache").write_bytes(CACHE + b"r 3dcccccd\n")
    return tmp_path


def run(folder: Path, *arguments: str) -> int:
    return main([str(folder / each) if "." in each else each for each in arguments])


def test_a_cache_and_back_is_the_same_cache(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files, "convert", "model.onnx", "some.cache", "-o", "q.onnx") == 0
    assert "2 layers in int8, 0 left in floating point" in capsys.readouterr().out
    back = ["--to-cache", "back.cache", "-o", "plain.onnx", "--tensorrt-version", "8510"]
    assert run(files, "convert", "q.onnx", *back) == 0
    assert (files / "back.cache").read_bytes() == (files / "some.cache").read_bytes()
    assert run(files, "lint-qdq", "q.onnx") == 0
    assert "no violations" in capsys.readouterr().out


def test_a_zip_of_a_model_and_its_external_data_is_converted(files: Path) -> None:
    model = onnx.load(files / "model.onnx")
    for each in model.graph.initializer:  # only raw data can lie outside
        each.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(each), each.name))
    onnx.save(model, files / "apart.onnx", save_as_external_data=True, location="apart.data", size_threshold=0)
    with zipfile.ZipFile(files / "apart.zip", "w") as archive:
        for name in ("apart.onnx", "apart.data"):
            archive.write(files / name, name)
    assert run(files, "convert", "model.onnx", "some.cache", "-o", "one.onnx") == 0
    assert run(files, "convert", "apart.zip", "some.cache", "-o", "two.onnx") == 0
    assert onnx.load(files / "two.onnx").graph == onnx.load(files / "one.onnx").graph


def test_layers_left_in_float_are_printed_with_the_reason(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files, "convert", "model.onnx", "part.cache", "-o", "q.onnx", "--half") == 0
    printed = capsys.readouterr().out
    assert "second: the cache has no entry for the tensor 'r'" in printed
    assert "1 entries of the cache belong to no quantized input: elsewhere" in printed
    assert "Cast" in {node.op_type for node in onnx.load(files / "q.onnx").graph.node}


def test_violations_are_exit_status_1_as_a_table_and_as_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = """g (float[n,2,4,4] x) => (float[n,2,4,4] y) <float s = {0.5}, int8 z = {0}>
    { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) [bold] y = Softmax(d) }"""
    saved(files, body, "bad.onnx")
    assert run(files, "lint-qdq", "bad.onnx") == 1
    printed = capsys.readouterr().out
    assert "needless-pair" in printed
    assert "1 violation" in printed
    assert run(files, "lint-qdq", "bad.onnx", "--json") == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["rule"], row["node"], row["tensor"]) == ("needless-pair", "bold", "x")
    assert set(row) == {"rule", "node", "tensor", "why", "cost"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "nowhere.onnx", "some.cache", "-o", "q.onnx"], "error: MODEL: there is no file"),
        (["convert", "model.onnx", "nowhere.cache", "-o", "q.onnx"], "error: CACHE: there is no file"),
        (["convert", "model.onnx", "bad.cache", "-o", "q.onnx"], "bad.cache: line 3: "),
        (["convert", "some.cache", "some.cache", "-o", "q.onnx"], "error: this is not an ONNX model"),
        (["convert", "model.onnx", "-o", "q.onnx"], "error: CACHE: give either"),
        (["convert", "model.onnx", "some.cache", "--to-cache", "b.cache", "-o", "q.onnx"], "error: CACHE: give either"),
        (["convert", "model.onnx", "--to-cache", "b.cache", "-o", "q.onnx"], "error: the model has no Q/DQ pair"),
        (["lint-qdq", "some.cache"], "is not a valid ONNX model"),
    ],
)
def test_an_error_is_one_line_and_exit_status_2(
    files: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(files, *arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (files / "q.onnx").exists()


def test_a_cache_of_a_model_with_a_plugin_needs_the_library_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.saved(tmp_path)
    tensors = ("x", "h", "negative", "positive", "l", "r", "s", "t")
    entries = "".join(f"{name}: 3d4ccccd\n" for name in tensors)
    (tmp_path / "some.cache").write_text(f"TRT-8510-EntropyCalibration2\n{entries}")
    monkeypatch.delenv("QUANTSIEVE_CUSTOM_OP_LIBRARIES", raising=False)
    assert run(tmp_path, "convert", "m.onnx", "some.cache", "-o", "q.onnx") == 2
    assert "ai.onnx.contrib::NegPos (node 'split')" in capsys.readouterr().err
    monkeypatch.setenv("QUANTSIEVE_CUSTOM_OP_LIBRARIES", str(plugins.library()))
    assert run(tmp_path, "convert", "m.onnx", "some.cache", "-o", "q.onnx") == 0
    assert f"{len(plugins.LAYERS)} layers in int8, 0 left in floating point" in capsys.readouterr().out

    monkeypatch.delenv("QUANTSIEVE_CUSTOM_OP_LIBRARIES")  # neither of these runs the model
    assert run(tmp_path, "lint-qdq", "q.onnx") == 0
    back = ["--to-cache", "back.cache", "-o", "plain.onnx", "--tensorrt-version", "8510"]
    assert run(tmp_path, "convert", "q.onnx", *back) == 0
    written = (tmp_path / "back.cache").read_text()
    assert "negative: 3d4ccccd" in written
    assert "positive: 3d4ccccd" in written


def test_a_plugin_without_the_scale_of_an_output_stays_in_floating_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.saved(tmp_path)
    (tmp_path / "some.cache").write_text("TRT-8510-EntropyCalibration2\nx: 3d4ccccd\nh: 3d4ccccd\n")
    monkeypatch.setenv("QUANTSIEVE_CUSTOM_OP_LIBRARIES", str(plugins.library()))
    assert run(tmp_path, "convert", "m.onnx", "some.cache", "-o", "q.onnx") == 0
    assert "split: the cache has no entry for the tensor 'negative'" in capsys.readouterr().out
