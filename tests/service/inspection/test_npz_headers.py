"""Headers of .npz members: those that lie, those that hold objects, those that are none."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from service.domain.errors import RejectedFile
from service.inspection import npz_headers
from service.inspection.arrays import ArrayHeader
from service.inspection.npz_headers import read_npz_headers
from service.inspection.zip_listing import list_zip
from tests.service.api.files import lying_npz, savez, zip_bytes


def headers(folder: Path, content: bytes) -> dict[str, ArrayHeader]:
    path = folder / "eval.npz"
    path.write_bytes(content)
    return read_npz_headers(path, list_zip(path))


def header_only(shape: object, descr: object = "<f4", data: bytes = b"") -> bytes:
    """A member whose header says this, over this data."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (64 - (10 + len(text) + 1) % 64) + b"\n"
    return zip_bytes({"x.npy": b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data})


def test_headers_tell_shape_dtype_order_and_place(tmp_path: Path) -> None:
    array = np.asfortranarray(np.zeros((4, 3), ">f8"))
    found = headers(tmp_path, savez({"x": array, "labels": np.zeros(4, np.int64)}))
    assert found["x"] == ArrayHeader((4, 3), np.dtype(">f8"), offset=128, fortran_order=True)
    assert found["labels"].dtype == np.int64


def test_no_array_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "eval.npz"
    np.savez_compressed(path, x=np.zeros(10_000_000, np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # a damage that unpacking all would find
    assert headers(tmp_path, bytes(content))["x"].shape == (10_000_000,)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_versions_of_plain_headers_are_read(tmp_path: Path, version: tuple[int, int]) -> None:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.zeros((2, 2), np.float32), version=version)
    assert headers(tmp_path, zip_bytes({"x.npy": out.getvalue()}))["x"].shape == (2, 2)


def objects() -> bytes:
    return savez({"x": np.array([{}, []], dtype=object)})


def object_header_over_a_pickle() -> bytes:
    return header_only((2,), "|O", pickle.dumps([1, 2]))


LIES = {
    "745 GiB in 128 bytes": (lying_npz(), "array-size", r"claims 800000000000 bytes \(shape \(200000000000,\)"),
    "more than there is": (header_only((5,), data=b"\0" * 16), "array-size", "claims 20 bytes .* but holds 16"),
    "less than there is": (header_only((3,), data=b"\0" * 16), "array-size", "claims 12 bytes .* but holds 16"),
    "a product that overflows": (header_only((2**40, 2**40)), "array-size", "claims 4835703278458516698824704 bytes"),
    "a negative size": (header_only((-1, 4)), "npy-header", r"claims the shape \(-1, 4\), with a negative size"),
    "a shape of text": (header_only(("a",)), "npy-header", "has no readable .npy header"),
    "a shape that is no tuple": (header_only(4), "npy-header", "has no readable .npy header"),
    "a dtype that is none": (header_only((1,), "<q9"), "npy-header", "has no readable .npy header"),
    "code instead of a header": (
        zip_bytes({"x.npy": b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').system('true')\n"}),
        "npy-header",
        "has no readable .npy header",
    ),
    "a header that is cut off": (zip_bytes({"x.npy": b"\x93NUMPY\x01\x00\xff\xff{'descr'"}), "npy-header", "'x'"),
    "very deep": (zip_bytes({"x.npy": b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000}), "npy-header", "'x'"),
    "no header": (zip_bytes({"x.npy": b"hello"}), "npy-header", "write it with numpy.savez"),
    "nothing": (zip_bytes({"x.npy": b""}), "npy-header", "'x'"),
    "objects": (objects(), "object-array", r"'x' holds Python objects \(a pickle\), which run code .* numeric dtype"),
    "objects by their header": (object_header_over_a_pickle(), "object-array", "holds Python objects"),
    "objects in a record": (header_only((1,), [("a", "|O")], b"\0" * 8), "object-array", "holds Python objects"),
    "a record": (header_only((1,), [("a", "<f4")], b"\0" * 4), "array-dtype", "numbers are needed"),
    "text": (savez({"x": np.array(["cat", "dog"])}), "array-dtype", "has the dtype '<U3'"),
    "complex numbers": (savez({"x": np.zeros(2, np.complex64)}), "array-dtype", "has the dtype 'complex64'"),
    "dates": (savez({"x": np.zeros(2, "M8[s]")}), "array-dtype", "numbers are needed"),
    "another file": (zip_bytes({"notes.txt": b"x", "x.npy": b""}), "npz-foreign-file", "'notes.txt'"),
}


@pytest.mark.parametrize(("content", "code", "words"), LIES.values(), ids=LIES)
def test_a_header_is_not_believed(tmp_path: Path, content: bytes, code: str, words: str) -> None:
    with pytest.raises(RejectedFile, match=words) as caught:
        headers(tmp_path, content)
    assert caught.value.code == code


def test_too_many_arrays_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz_headers, "MOST_ARRAYS", 2)
    with pytest.raises(RejectedFile, match="holds 3 arrays; at most 2"):
        headers(tmp_path, savez({name: np.zeros(1) for name in "abc"}))


def test_a_deflated_header_that_is_damaged_is_named(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"x.npy": savez({"y": np.zeros(50)})}, method=zipfile.ZIP_DEFLATED))
    content[35:60] = b"\xff" * 25
    with pytest.raises(RejectedFile, match="array 'x' is damaged or cut off") as caught:
        headers(tmp_path, bytes(content))
    assert caught.value.code == "npz-damaged"
