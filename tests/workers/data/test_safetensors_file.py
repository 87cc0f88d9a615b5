"""Opening .safetensors files; what damaged headers do is in tests/service/inspection/test_safetensors_header.py."""

from pathlib import Path

import numpy as np
import pytest

from service.domain.errors import RejectedFile
from tests.service.api.files import safetensors_bytes
from workers.data.safetensors_file import open_safetensors

PIXELS = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3)
SCORES = np.array([[0.5], [-2.0]], np.float16)
LABELS = np.array([1, 0], np.int32)


def saved(folder: Path, **arrays: tuple[str, np.ndarray]) -> Path:
    header, data = {"__metadata__": {"made": "by hand"}}, b""
    for name, (dtype, array) in arrays.items():
        end = len(data) + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    path = folder / "eval.safetensors"
    path.write_bytes(safetensors_bytes(header, data))
    return path


def test_arrays_are_mapped_where_they_lie(tmp_path: Path) -> None:
    path = saved(tmp_path, pixels=("U8", PIXELS), scores=("F16", SCORES), targets=("I32", LABELS))
    opened = open_safetensors(path)
    batch = opened.batch(np.array([1, 0]))
    np.testing.assert_array_equal(batch["pixels"], PIXELS[::-1])
    np.testing.assert_array_equal(batch["scores"], SCORES[::-1])
    assert {name: each.dtype for name, each in batch.items()} == {"pixels": np.uint8, "scores": np.float16}
    np.testing.assert_array_equal(opened.targets, LABELS)
    assert {Path(each.filename) for each in opened.arrays.values()} == {path}


def test_what_the_safetensors_library_writes_is_read(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    library.save_file({"x": SCORES, "labels": LABELS}, tmp_path / "eval.safetensors")
    np.testing.assert_array_equal(open_safetensors(tmp_path / "eval.safetensors").batch(np.arange(2))["x"], SCORES)


def test_different_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedFile, match="'pixels' 2, 'labels' 1"):
        open_safetensors(saved(tmp_path, pixels=("U8", PIXELS), labels=("I32", LABELS[:1])))
