"""Zips of class folders; which listings are refused is in tests/service/inspection/test_image_listing.py."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.domain.errors import RejectedFile
from tests.service.api.files import zip_bytes
from workers.data import decoding, image_zip
from workers.data.image_zip import ImageZip


def encoded(value: int, kind: str = "PNG", mode: str = "L", size: tuple[int, int] = (3, 2)) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, value).save(out, kind)
    return out.getvalue()


def saved(folder: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "images.zip"
    path.write_bytes(zip_bytes(members, method=method))
    return path


def test_each_image_has_the_label_of_its_folder(tmp_path: Path) -> None:
    members = {"dog/1.png": encoded(1), "cat/2.png": encoded(2), "cat/3.png": encoded(3), "dog/4.png": encoded(4)}
    opened = ImageZip(saved(tmp_path, members))
    assert (opened.samples, opened.class_names, opened.class_counts) == (4, ("cat", "dog"), {"cat": 2, "dog": 2})
    assert opened.targets is not None
    assert opened.targets.dtype == np.int64
    values = [int(each[0, 0, 0]) for each in opened.batch(np.arange(4))["images"]]
    assert dict(zip(values, opened.targets.tolist(), strict=True)) == {2: 0, 3: 0, 1: 1, 4: 1}


def test_images_of_all_formats_and_modes_become_rgb(tmp_path: Path) -> None:
    members = {
        "a/1.png": encoded(7, "PNG", "L"),
        "a/2.bmp": encoded(7, "BMP", "RGB"),
        "a/3.jpg": encoded(7, "JPEG", "CMYK"),
        "a/4.webp": encoded(7, "WEBP", "RGBA"),
        "a/5.PNG": encoded(7, "PNG", "P"),
    }
    batch = ImageZip(saved(tmp_path, members)).batch(np.arange(5))["images"]
    assert {(each.shape, each.dtype.name) for each in batch} == {((2, 3, 3), "uint8")}


def test_the_same_position_is_the_same_image_each_time(tmp_path: Path) -> None:
    opened = ImageZip(saved(tmp_path, {f"a/{each}.png": encoded(each) for each in range(4)}))
    assert [int(each[0, 0, 0]) for each in opened.batch(np.array([3, 1, 3]))["images"]] == [3, 1, 3]


BAD = {
    "text": (b"this is no image", "'a/1.png' is none of JPEG, PNG, BMP, WEBP, or is damaged"),
    "cut off": (encoded(3, size=(200, 200))[:-30], "'a/1.png' cannot be decoded"),
    "16 bits": (encoded(3, mode="I;16"), "'a/1.png' has the pixel format I;16; 8 bits"),
    "a format that is not taken": (encoded(3, "GIF"), "'a/1.png' is none of JPEG"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(RejectedFile, match=words):
        ImageZip(saved(tmp_path, {"a/1.png": content})).batch(np.arange(1))


def test_an_image_that_is_damaged_in_the_zip_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a/1.png": encoded(3)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"IHDR") + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(RejectedFile, match=r"'a/1\.png' is damaged in the zip"):
        ImageZip(path).batch(np.arange(1))


def test_an_image_with_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MOST_PIXELS", 100)
    with pytest.raises(RejectedFile, match="has 11 × 10 pixels; at most 100"):
        ImageZip(saved(tmp_path, {"a/1.png": encoded(3, size=(11, 10))})).batch(np.arange(1))


def test_an_image_file_that_is_too_large_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_zip, "LARGEST_IMAGE_FILE", 10)
    with pytest.raises(RejectedFile, match="at most 10 are taken"):
        ImageZip(saved(tmp_path, {"a/1.png": encoded(3)})).batch(np.arange(1))
