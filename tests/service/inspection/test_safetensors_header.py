"""Headers of safetensors files, with every claim checked against the file."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.domain.errors import RejectedFile
from service.inspection import safetensors_header
from service.inspection.arrays import ArrayHeader
from service.inspection.safetensors_header import read_safetensors_header
from tests.service.api.files import safetensors_bytes


def entry(dtype: Any = "F32", shape: Any = (2,), data_offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}


def read(folder: Path, content: bytes) -> dict[str, ArrayHeader]:
    path = folder / "eval.safetensors"
    path.write_bytes(content)
    return read_safetensors_header(path)


def test_arrays_are_found_at_their_place(tmp_path: Path) -> None:
    header = {"__metadata__": {"a": "b"}, "x": entry(), "y": entry("U8", [3], [8, 11])}
    found = read(tmp_path, safetensors_bytes(header, b"\0" * 11))
    start = 8 + len(json.dumps(header))
    assert found == {
        "x": ArrayHeader((2,), np.dtype("<f4"), start),
        "y": ArrayHeader((3,), np.dtype("uint8"), start + 8),
    }


TWICE = b'{"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "x": {}}'
BAD = {
    "no JSON": (safetensors_bytes(b"{nonsense"), "safetensors-header", "not valid JSON"),
    "no text": (safetensors_bytes(b'{"\xff": 1}'), "safetensors-header", "not valid JSON"),
    "no object": (safetensors_bytes(b"[1, 2]"), "safetensors-header", "not a JSON object"),
    "very deep": (safetensors_bytes(b'{"a":' * 100_000), "safetensors-header", "not valid JSON"),
    "a name twice": (safetensors_bytes(TWICE, b"\0"), "safetensors-header", "a name stands there twice"),
    "a header beyond the end": (struct.pack("<Q", 1000) + b"{}", "safetensors-header", "claims 1000 bytes, the file"),
    "a huge header": (struct.pack("<Q", 2**62) + b"{}", "safetensors-header", "at most 4194304 are taken"),
    "an entry that is none": (safetensors_bytes({"x": 1}), "safetensors-header", "entry of array 'x'"),
    "no dtype": (safetensors_bytes({"x": entry(None)}, b"\0" * 8), "array-dtype", "has the dtype 'None'; one of BOOL"),
    "bfloat16": (safetensors_bytes({"x": entry("BF16", [4])}, b"\0" * 8), "array-dtype", "'BF16'"),
    "no shape": (safetensors_bytes({"x": entry(shape=None)}, b"\0" * 8), "safetensors-header", "no valid shape"),
    "a negative shape": (
        safetensors_bytes({"x": entry(shape=[-2])}, b"\0" * 8),
        "safetensors-header",
        "no valid shape",
    ),
    "a shape of true": (safetensors_bytes({"x": entry(shape=[True])}, b"\0" * 8), "safetensors-header", "valid shape"),
    "too many axes": (safetensors_bytes({"x": entry(shape=[1] * 40)}, b"\0" * 8), "safetensors-header", "valid shape"),
    "one offset": (safetensors_bytes({"x": entry(data_offsets=[0])}, b"\0" * 8), "safetensors-header", "data_offsets"),
    "offsets backwards": (
        *(safetensors_bytes({"x": entry(data_offsets=[8, 0])}, b"\0" * 8), "safetensors-header"),
        "lies at bytes 8 to 0",
    ),
    "beyond the end": (safetensors_bytes({"x": entry()}, b"\0" * 4), "safetensors-header", "holds 4 bytes of data"),
    "another size than its shape": (
        *(safetensors_bytes({"x": entry(shape=[3])}, b"\0" * 8), "safetensors-header"),
        "needs 12 bytes, but has 8",
    ),
}


@pytest.mark.parametrize(("content", "code", "words"), BAD.values(), ids=BAD)
def test_a_header_is_not_believed(tmp_path: Path, content: bytes, code: str, words: str) -> None:
    with pytest.raises(RejectedFile) as caught:
        read(tmp_path, content)
    assert caught.value.code == code
    assert words in caught.value.message


def test_too_many_arrays_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_header, "MOST_ARRAYS", 2)
    with pytest.raises(RejectedFile, match="holds 3 arrays; at most 2"):
        read(tmp_path, safetensors_bytes({name: entry() for name in "abc"}, b"\0" * 8))
