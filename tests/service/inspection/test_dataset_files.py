"""Which kind of evaluation set a file is, by its content, and what a cheap look tells of it."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from service.domain.errors import RejectedFile
from service.inspection.dataset_files import DatasetSketch, inspect_dataset
from service.inspection.formats import DatasetFormat
from tests.service.api.files import onnx_bytes, pt2_bytes, safetensors_bytes, savez, zip_bytes

FOUR = {"x": np.zeros((4, 3), np.float32), "labels": np.zeros(4, np.int64)}
ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
PARQUET = b"PAR1" + b"\0" * 20 + (16).to_bytes(4, "little") + b"PAR1"


def inspect(folder: Path, content: bytes, name: str = "upload") -> DatasetSketch:
    path = folder / name
    path.write_bytes(content)
    return inspect_dataset(path)


KINDS = {
    DatasetFormat.NPZ: savez(FOUR),
    DatasetFormat.SAFETENSORS: safetensors_bytes({"x": ENTRY}, b"\0" * 24),
    DatasetFormat.PARQUET: PARQUET,
    DatasetFormat.IMAGE_ZIP: zip_bytes({"cat/1.png": b"x"}),
}


@pytest.mark.parametrize(("kind", "content"), KINDS.items(), ids=KINDS)
@pytest.mark.parametrize("name", ["upload", "eval.csv"])
def test_the_content_decides_and_not_the_name(tmp_path: Path, kind: DatasetFormat, content: bytes, name: str) -> None:
    assert inspect(tmp_path, content, name).format is kind


def test_headers_tell_samples_shapes_dtypes_and_labels(tmp_path: Path) -> None:
    sketch = inspect(tmp_path, savez(FOUR))
    assert (sketch.samples, sketch.labels) == (4, "labels")
    assert {name: (each.shape, each.dtype) for name, each in sketch.arrays.items()} == {"x": ((3,), "float32")}


def test_labels_may_be_missing(tmp_path: Path) -> None:
    assert inspect(tmp_path, savez({"x": FOUR["x"]})).labels is None


def test_a_listing_tells_the_classes(tmp_path: Path) -> None:
    sketch = inspect(tmp_path, zip_bytes({"cat/1.png": b"x", "dog/1.png": b"x", "dog/2.png": b"x"}))
    assert (sketch.samples, sketch.class_counts) == (3, {"cat": 1, "dog": 2})


REFUSED = {
    "nothing": (b"", "empty-file", "send the file itself"),
    "a web page": (b"\n <!DOCTYPE html><html>", "web-page", "asks for a login"),
    "a git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "lfs-pointer", "git lfs pull"),
    "a pickle": (pickle.dumps(FOUR), "pickle", "runs code when it is loaded"),
    "one array": (b"\x93NUMPY\x01\x00", "plain-npy", "numpy.savez('eval.npz'"),
    "a CSV file": (b"a,b\n1,2\n", "unknown-format", "send arrays as .npz"),
    "an ONNX model": (onnx_bytes(), "unknown-format", "send arrays as .npz"),
    "a torch.export archive": (pt2_bytes(), "model-as-dataset", "PyTorch file, not an evaluation set"),
    "a torch.save file": (zip_bytes({"net/data.pkl": b""}), "model-as-dataset", "PyTorch file"),
    "a zip of text": (zip_bytes({"a.txt": b"x"}), "no-arrays", "neither arrays (.npy) nor images"),
    "an empty zip": (zip_bytes({}), "no-arrays", "neither arrays (.npy) nor images"),
    "a Parquet file cut off": (PARQUET[:-5], "parquet-cut-off", "its end is missing"),
    "a Parquet file with a footer of more than all": (
        *(b"PAR1" + (1000).to_bytes(4, "little") + b"PAR1", "parquet-cut-off"),
        "its end is missing",
    ),
    "an empty set": (savez({"x": np.zeros((0, 3))}), "no-samples", "'x' holds 0 samples"),
    "different lengths": (savez({**FOUR, "y": np.zeros(5)}), "different-lengths", "'y' 5"),
}


@pytest.mark.parametrize(("content", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_evaluation_set_is_refused_with_what_would_be(
    tmp_path: Path, content: bytes, code: str, words: str
) -> None:
    with pytest.raises(RejectedFile) as caught:
        inspect(tmp_path, content)
    assert caught.value.code == code
    assert words in caught.value.message
