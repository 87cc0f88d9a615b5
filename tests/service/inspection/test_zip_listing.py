"""Listings of zips that somebody sent: what is let through, and everything hostile that is not."""

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from service.domain.errors import RejectedFile
from service.inspection.zip_listing import ZipLimits, list_zip
from tests.service.api.files import zip_bomb, zip_bytes

LINK = stat.S_IFLNK | 0o777
PIPE = stat.S_IFIFO | 0o644


def listed(folder: Path, content: bytes, limits: ZipLimits | None = None) -> list[str]:
    path = folder / "sent.zip"
    path.write_bytes(content)
    return [each.filename for each in (list_zip(path, limits) if limits else list_zip(path))]


def test_files_are_listed_and_folders_are_not(tmp_path: Path) -> None:
    assert listed(tmp_path, zip_bytes({"cat/": b"", "cat/a.png": b"x", "dog/b..png": b"y"})) == [
        "cat/a.png",
        "dog/b..png",
    ]


def test_an_empty_zip_lists_nothing(tmp_path: Path) -> None:
    assert listed(tmp_path, zip_bytes({})) == []


def test_a_zip_with_a_comment_and_one_in_the_zip64_form_are_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.comment = b"made by hand"
        with archive.open("a.bin", "w", force_zip64=True) as file:
            file.write(b"x")
    assert listed(tmp_path, out.getvalue()) == ["a.bin"]


def test_what_python_cannot_seek_in_is_read_too(tmp_path: Path) -> None:
    """Zips made on the fly have their sizes after the data."""

    class Stream(io.RawIOBase):
        content = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:
            self.content += bytes(data)
            return len(data)

    stream = Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bin", b"x" * 1000)
        archive.writestr("b.bin", b"y" * 1000)
    assert listed(tmp_path, stream.content) == ["a.bin", "b.bin"]


def changed(content: bytes, offset: int, form: str, value: int) -> bytes:
    """Another value at this offset of the first entry of the listing."""
    made = bytearray(content)
    struct.pack_into(form, made, made.index(b"PK\x01\x02") + offset, value)
    return bytes(made)


def overlapping(count: int) -> bytes:
    """A zip whose entries all claim the bytes of one file."""
    content = zip_bytes({"a/0.png": b"\0" * 1000}, method=zipfile.ZIP_DEFLATED)
    start, end = content.index(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    entries = b"".join(content[start:end].replace(b"a/0.png", b"a/%d.png" % index) for index in range(count))
    return (
        content[:start] + entries + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(entries), start, 0)
    )


def twice() -> bytes:
    return zip_bytes({"a": b"x", "b": b"y"}).replace(b"b", b"a")


HOSTILE = {
    "leads out": (zip_bytes({"../a": b""}), "zip-escape", "'../a', which leads out of it; no path may hold '..'"),
    "leads out in between": (zip_bytes({"a/../../b": b""}), "zip-escape", "leads out"),
    "leads out by backslashes": (zip_bytes({"a\\..\\..\\b": b""}), "zip-escape", "leads out"),
    "absolute": (zip_bytes({"/etc/passwd": b""}), "zip-absolute-path", "'/etc/passwd'; all paths must be relative"),
    "absolute by a backslash": (zip_bytes({"\\x": b""}), "zip-absolute-path", "all paths must be relative"),
    "a drive": (zip_bytes({"C:x": b""}), "zip-absolute-path", "'C:x'"),
    "a link": (zip_bytes({"a": b"/etc/passwd"}, mode=LINK), "zip-link", "symbolic link"),
    "a pipe": (zip_bytes({"a": b""}, mode=PIPE), "zip-link", "special file"),
    "encrypted": (changed(zip_bytes({"a": b"x"}), 8, "<H", 1), "zip-encrypted", "without a password"),
    "strongly encrypted": (changed(zip_bytes({"a": b"x"}), 8, "<H", 0x40), "zip-encrypted", "without a password"),
    "a file that begins beyond the end": (changed(zip_bytes({"a": b"x"}), 42, "<L", 5000), "zip-damaged", "'a'"),
    "a file without a name": (zip_bytes({"a": b"x"}).replace(b"a", b"\0"), "zip-damaged", "makes no sense"),
    "a patch": (changed(zip_bytes({"a": b"x"}), 8, "<H", 0x20), "zip-damaged", "makes no sense"),
    "another compression": (zip_bytes({"a": b"x"}, method=zipfile.ZIP_LZMA), "zip-compression", "use store or deflate"),
    "a name twice": (twice(), "zip-duplicate-name", "'a' twice"),
    "files that overlap": (overlapping(3), "zip-overlap", "overlap in the zip"),
    "a bomb": (zip_bomb(), "zip-bomb", "more than 200 times as many"),
    "no end": (zip_bytes({"a": b"x"})[:-25], "zip-damaged", "its end is missing"),
    "a listing that begins before the file": (zip_bytes({"a": b"x"})[40:], "zip-damaged", "damaged or cut off"),
    "a listing that is no listing": (
        zip_bytes({"a": b"x"}).replace(b"PK\x01\x02", b"PK\xff\xff"),
        "zip-damaged",
        "damaged or cut off",
    ),
}


@pytest.mark.parametrize(("content", "code", "words"), HOSTILE.values(), ids=HOSTILE)
def test_what_could_harm_is_refused_by_name(tmp_path: Path, content: bytes, code: str, words: str) -> None:
    with pytest.raises(RejectedFile) as caught:
        listed(tmp_path, content)
    assert caught.value.code == code
    assert words in caught.value.message


LIMITS = {
    "files": (ZipLimits(entries=2), "zip-too-many-files", "more than 2 files"),
    "bytes of listing": (ZipLimits(listing_bytes=100), "zip-too-many-files", "more than"),
    "bytes unpacked": (ZipLimits(total_bytes=20_000), "zip-too-large", "30000 bytes when unpacked; at most 20000"),
    "ratio": (ZipLimits(free_bytes=10_000, ratio=5), "zip-bomb", "more than 5 times as many"),
}


@pytest.mark.parametrize(("limits", "code", "words"), LIMITS.values(), ids=LIMITS)
def test_each_limit_holds(tmp_path: Path, limits: ZipLimits, code: str, words: str) -> None:
    content = zip_bytes(dict.fromkeys("abc", b"\x00" * 10000), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(RejectedFile) as caught:
        listed(tmp_path, content, limits)
    assert caught.value.code == code
    assert words in caught.value.message


def test_a_zip_at_its_limits_is_taken(tmp_path: Path) -> None:
    content = zip_bytes(dict.fromkeys("abc", b"\x00" * 10000), method=zipfile.ZIP_DEFLATED)
    limits = ZipLimits(entries=3, total_bytes=30_000, free_bytes=30_000, ratio=1)
    assert listed(tmp_path, content, limits) == ["a", "b", "c"]


def test_entries_are_counted_before_objects_are_made_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a zip may claim fewer entries than its listing holds."""

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the listing was parsed")

    content = bytearray(zip_bytes({str(index): b"" for index in range(10)}))
    struct.pack_into("<HH", content, len(content) - 14, 1, 1)
    monkeypatch.setattr(zipfile, "ZipFile", opened)
    with pytest.raises(RejectedFile, match="more than 5 files"):
        listed(tmp_path, bytes(content), ZipLimits(entries=5))


def test_long_and_odd_names_are_shown_short_and_escaped(tmp_path: Path) -> None:
    with pytest.raises(RejectedFile) as caught:
        listed(tmp_path, zip_bytes({"../" + "\x1b[31m" + "x" * 500: b""}))
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 250
