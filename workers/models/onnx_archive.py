"""Unpacks a zip of an ONNX file and its external data into a private folder, under file names of our own."""

import posixpath
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from service.domain.errors import RejectedFile
from service.inspection.formats import quoted
from service.inspection.onnx_archive import OnnxArchive, list_onnx_archive
from service.inspection.zip_listing import DAMAGE, list_zip
from workers.models.onnx_size import refuse_too_many_nodes
from workers.models.onnx_walk import all_tensors, undecodable
from workers.models.private_folder import private_folder

COPY_BYTES = 2**20
MOST_SHARING = 4
"""How often each byte of external data may be claimed, on average: tied weights do, a memory bomb does far more."""


def external_tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Those of the constant tensors whose data lie in other files."""
    return (each for each in all_tensors(message) if each.data_location == onnx.TensorProto.EXTERNAL)


def location_of(tensor: onnx.TensorProto) -> str:
    """Where the data of a tensor is said to be; raises RejectedFile where it is not said once."""
    return _entry(tensor, "location") or ""


def refuse_undecodable(model: onnx.ModelProto) -> None:
    """Raise RejectedFile where a name in the model is not text: nobody could be shown it, no filter could match it."""
    name = next(undecodable(model), None)
    if name is not None:
        raise RejectedFile(f"the ONNX model holds the name {name[:80]!r}, which is not UTF-8: it is damaged")


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The ONNX file of a zip, with all the data that it names, as long as the block lasts.

    Only what the model names is unpacked. The names of the files on the disk are ours, so that no name in the zip
    or in the model is ever a path. Raises RejectedFile where a name is not that of a file in the zip.
    """
    archive = list_onnx_archive(list_zip(path))
    with private_folder() as folder:
        try:
            with zipfile.ZipFile(path) as source:
                model = _unpack(source, archive, folder)
        except DAMAGE as error:
            raise RejectedFile(f"the zip is damaged ({error}); send it once more", code="zip-damaged") from error
        yield model


def _unpack(source: zipfile.ZipFile, archive: OnnxArchive, folder: Path) -> Path:
    try:
        model = onnx.ModelProto.FromString(source.read(archive.model))
    except DAMAGE:
        raise
    except Exception as error:  # protobuf's own error has no type that it promises
        raise RejectedFile(f"{quoted(archive.model.filename)} in the zip is not an ONNX model: {error}") from error
    refuse_too_many_nodes(model)
    refuse_undecodable(model)
    names: dict[str, str] = {}
    claimed = 0
    for tensor in external_tensors(model):
        member = _member(tensor, archive)
        claimed += _claimed_bytes(tensor, member.file_size)
        place = names.setdefault(member.filename, f"{len(names)}.data")
        next(each for each in tensor.external_data if each.key == "location").value = place
    held = sum(source.getinfo(name).file_size for name in names)
    if claimed > MOST_SHARING * held:
        raise RejectedFile(
            f"the tensors claim {claimed} bytes of external data, of {held} that are there; "
            f"at most {MOST_SHARING} times as many are taken"
        )
    for name, place in names.items():
        with source.open(name) as packed, (folder / place).open("xb") as file:
            shutil.copyfileobj(packed, file, COPY_BYTES)
    target = folder / "model.onnx"
    target.write_bytes(model.SerializeToString())
    return target


def _member(tensor: onnx.TensorProto, archive: OnnxArchive) -> zipfile.ZipInfo:
    location = location_of(tensor)
    parts = location.replace("\\", "/").split("/")
    if location.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise RejectedFile(
            f"tensor {quoted(tensor.name)} has its data at {quoted(location)}, which is not in the zip; "
            "a location must be a relative path without '..'"
        )
    member = archive.data.get(posixpath.normpath(location))
    if member is None:
        there = ", ".join(quoted(name) for name in list(archive.data)[:8]) or "no other file"
        raise RejectedFile(
            f"tensor {quoted(tensor.name)} has its data at {quoted(location)}, which is not in the zip; beside the "
            f".onnx file it holds {there}"
        )
    return member


def _claimed_bytes(tensor: onnx.TensorProto, size: int) -> int:
    """The bytes that will be read for a tensor from a file of this size; raises RejectedFile where they can't be."""
    try:
        offset = int(_entry(tensor, "offset") or 0)
        length = int(_entry(tensor, "length") or size - offset)
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > size:
        raise RejectedFile(
            f"tensor {quoted(tensor.name)} lies at offset {quoted(_entry(tensor, 'offset') or '0')} with length "
            f"{quoted(_entry(tensor, 'length') or 'the rest')} in {quoted(location_of(tensor))}, which has {size} bytes"
        )
    return length


def _entry(tensor: onnx.TensorProto, key: str) -> str | None:
    values = [each.value for each in tensor.external_data if each.key == key]
    if len(values) > 1 or (key == "location" and not values):
        raise RejectedFile(f"tensor {quoted(tensor.name)} names the {key} of its external data {len(values)} times")
    return values[0] if values else None
