"""A zip of one ONNX file and the external data that its tensors lie in, as models over 2 GB need."""

import posixpath
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from service.domain.errors import RejectedFile
from service.inspection.formats import quoted
from service.inspection.image_listing import is_litter
from service.inspection.onnx_fields import check_onnx_fields
from service.inspection.zip_listing import DAMAGE

SUFFIX = ".onnx"
LARGEST_MODEL = 2**31 - 1  # protobuf's own limit
LAYOUT = "a zip holds one .onnx file and its external data files, each at the path that the .onnx names"


@dataclass(frozen=True)
class OnnxArchive:
    """The members of such a zip. ``data``: by the path as seen from the folder of the ONNX file."""

    model: zipfile.ZipInfo
    data: Mapping[str, zipfile.ZipInfo]


def holds_onnx(names: Sequence[str]) -> bool:
    """Whether a zip of these files is meant as an ONNX model."""
    return any(name.endswith(SUFFIX) and not is_litter(name) for name in names)


def list_onnx_archive(members: Sequence[zipfile.ZipInfo]) -> OnnxArchive:
    """Tell the model from its data in a safe listing; raises RejectedFile where there is not exactly one model."""
    files = [each for each in members if not is_litter(each.filename)]
    models = [each for each in files if each.filename.endswith(SUFFIX)]
    if len(models) != 1:
        listed = ", ".join(quoted(each.filename) for each in models[:4])
        message = f"the zip holds {len(models)} ONNX files ({listed}); {LAYOUT}"
        raise RejectedFile(message, code="several-models")
    model = models[0]
    if model.file_size > LARGEST_MODEL:
        message = (
            f"{quoted(model.filename)} in the zip has {model.file_size} bytes; an .onnx file has at most "
            f"{LARGEST_MODEL}: save the weights as external data"
        )
        raise RejectedFile(message, code="onnx-too-large")
    folder = posixpath.dirname(model.filename)
    data = {posixpath.relpath(each.filename, folder or "."): each for each in files if each is not model}
    return OnnxArchive(model, data)


def check_onnx_archive(path: Path, members: Sequence[zipfile.ZipInfo], accepted: str) -> None:
    """Raise RejectedFile where the zip cannot be a model with its data. ``accepted``: what may be sent."""
    model = list_onnx_archive(members).model
    try:
        with zipfile.ZipFile(path) as archive, archive.open(model) as file:
            check_onnx_fields(cast(BinaryIO, file), model.file_size, accepted)
    except DAMAGE as error:
        message = f"{quoted(model.filename)} in the zip is damaged ({error}); send it once more"
        raise RejectedFile(message, code="zip-damaged") from error
