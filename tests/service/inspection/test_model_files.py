"""Which kind of model a file is, by its content, without a parser of models."""

import pickle
import zipfile
from pathlib import Path

import pytest

from service.domain.errors import RejectedFile
from service.inspection import onnx_archive
from service.inspection.formats import ModelFormat
from service.inspection.model_files import inspect_model
from tests.service.api.files import npz_bytes, onnx_bytes, pt2_bytes, safetensors_bytes, zip_bytes


def inspect(folder: Path, content: bytes, name: str = "upload") -> ModelFormat:
    path = folder / name
    path.write_bytes(content)
    return inspect_model(path)


KINDS = {
    "ONNX": (onnx_bytes(), ModelFormat.ONNX),
    "ONNX with a field of a later version": (onnx_bytes() + b"\xfa\x03\x00", ModelFormat.ONNX),
    "torch.export": (pt2_bytes(), ModelFormat.PT2),
    "torch.export before 2.8": (zip_bytes({"serialized_exported_program.json": b"{}"}), ModelFormat.PT2),
    "ONNX in a zip": (zip_bytes({"net.onnx": onnx_bytes()}), ModelFormat.ONNX),
    "ONNX with external data": (zip_bytes({"net.onnx": onnx_bytes(), "net.onnx.data": b"x"}), ModelFormat.ONNX),
    "ONNX with external data in a folder": (
        zip_bytes({"net/net.onnx": onnx_bytes(), "net/a/w.bin": b"x", "net/.DS_Store": b"x"}),
        ModelFormat.ONNX,
    ),
    "torch.export that carries an ONNX file": (
        zip_bytes({"net/archive_format": b"pt2", "net/models/model.json": b"{}", "net/extra/net.onnx": b"x"}),
        ModelFormat.PT2,
    ),
}


@pytest.mark.parametrize(("content", "kind"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", ["upload", "model.h5"])
def test_the_content_decides_and_not_the_name(tmp_path: Path, content: bytes, kind: ModelFormat, name: str) -> None:
    assert inspect(tmp_path, content, name) is kind


def test_a_deflated_model_is_looked_into(tmp_path: Path) -> None:
    content = zip_bytes({"net.onnx": onnx_bytes()}, method=zipfile.ZIP_DEFLATED)
    assert inspect(tmp_path, content) is ModelFormat.ONNX


GRAPH = b"\x08\x08\x3a\xff\x01abc"  # a graph of 255 bytes, of which three are there
REFUSED = {
    "nothing": (b"", "empty-file", "send the file itself"),
    "a web page": (b"<html>", "web-page", "web page"),
    "a pickle": (pickle.dumps([1]), "pickle", "torch.onnx.export(model"),
    "torch.save": (zip_bytes({"net/data.pkl": b""}), "pickle", "torch.export.save("),
    "TorchScript": (zip_bytes({"net/constants.pkl": b"", "net/data.pkl": b""}), "torchscript", "TorchScript"),
    "weights": (safetensors_bytes({}), "weights-only", "holds weights but no network"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + b"\0" * 50, "tflite-model", "TensorFlow Lite"),
    "Keras": (b"\x89HDF\r\n\x1a\n", "hdf5-file", "HDF5"),
    "GGUF": (b"GGUF\x03\0\0\0", "gguf-file", "GGUF"),
    "an array": (b"\x93NUMPY\x01\x00", "not-a-model", "NumPy array"),
    "arrays": (npz_bytes(), "not-a-model", ".npz of arrays, not a model"),
    "a Parquet file": (b"PAR1....PAR1", "not-a-model", "Parquet"),
    "a zip of text": (zip_bytes({"a.txt": b""}), "not-a-model", "a zip of one .onnx file and its external data files"),
    "text": (b"hello", "not-a-model", "send an ONNX file (.onnx)"),
    "zeros": (b"\0" * 100, "not-a-model", "send an ONNX file"),
    "protobuf without a graph": (b"\x08\x08", "not-a-model", "no ONNX graph"),
    "a model that is cut off": (GRAPH, "onnx-cut-off", "260 bytes are announced, 8 are there"),
    "a number without an end": (b"\x08\x08" + b"\xff" * 20, "not-a-model", "send an ONNX file"),
    "an archive without a program": (zip_bytes({"net/archive_format": b""}), "pt2-without-program", "models/*.json"),
    "two models in a zip": (
        *(zip_bytes({"a.onnx": onnx_bytes(), "b.onnx": onnx_bytes()}), "several-models"),
        "holds 2 ONNX files ('a.onnx', 'b.onnx'); a zip holds one .onnx file and its external data",
    ),
    "a zip of a model that is none": (zip_bytes({"a.onnx": b"hello"}), "not-a-model", "send an ONNX file"),
    "a zip of a model that is cut off": (zip_bytes({"a.onnx": GRAPH}), "onnx-cut-off", "is cut off"),
    "a model in a zip that leads out": (zip_bytes({"a.onnx": onnx_bytes(), "../w": b""}), "zip-escape", "leads out"),
}


@pytest.mark.parametrize(("content", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_model_is_refused_with_what_would_be(tmp_path: Path, content: bytes, code: str, words: str) -> None:
    with pytest.raises(RejectedFile) as caught:
        inspect(tmp_path, content)
    assert caught.value.code == code
    assert words in caught.value.message


def test_a_model_that_is_damaged_in_its_zip_is_named(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"a.onnx": onnx_bytes() * 100}, method=zipfile.ZIP_DEFLATED))
    content[36:40] = b"\xff" * 4
    with pytest.raises(RejectedFile, match=r"'a\.onnx' in the zip is damaged") as caught:
        inspect(tmp_path, bytes(content))
    assert caught.value.code == "zip-damaged"


def test_a_model_that_no_protobuf_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_archive, "LARGEST_MODEL", 5)
    with pytest.raises(RejectedFile, match="at most 5: save the weights as external data") as caught:
        inspect(tmp_path, zip_bytes({"a.onnx": onnx_bytes()}))
    assert caught.value.code == "onnx-too-large"
