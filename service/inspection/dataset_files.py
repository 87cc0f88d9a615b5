"""Tells which kind of evaluation set was sent and what its headers say of it."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from service.domain.errors import RejectedFile
from service.inspection.arrays import ArrayHeader, label_name, sample_count
from service.inspection.content import is_pickle, is_zip, read_head, starts_like_safetensors
from service.inspection.formats import DatasetFormat
from service.inspection.image_listing import LAYOUT, is_image, is_litter, list_images
from service.inspection.npz_headers import SUFFIX, read_npz_headers
from service.inspection.safetensors_header import read_safetensors_header
from service.inspection.zip_listing import list_zip

PARQUET_MAGIC = b"PAR1"
SMALLEST_PARQUET = 12
ACCEPTED = (
    "send arrays as .npz (numpy.savez) or .safetensors, a Parquet file, or a zip with a folder of images for each class"
)


class ArraySketch(BaseModel):
    """One array of samples: the shape of a single sample (without the sample axis), and the dtype."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, ...]
    dtype: str


class DatasetSketch(BaseModel):
    """What headers and listings tell of an evaluation set. ``arrays`` leaves out the labels, which ``labels`` names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: DatasetFormat
    arrays: dict[str, ArraySketch] = {}
    samples: int | None = None
    labels: str | None = None
    class_counts: dict[str, int] | None = None


def inspect_dataset(path: Path) -> DatasetSketch:
    """Sketch an evaluation set; raises RejectedFile where it is none that can be read."""
    head = read_head(path)
    if is_zip(head):
        return _inspect_zip(path)
    if head.startswith(PARQUET_MAGIC):
        _check_parquet(path)
        return DatasetSketch(format=DatasetFormat.PARQUET)
    if head.startswith(b"\x93NUMPY"):
        message = "the file is a single .npy array; save it by name, with numpy.savez('eval.npz', inputs=…, labels=…)"
        raise RejectedFile(message, code="plain-npy")
    if is_pickle(head):
        message = f"the file is a Python pickle, which runs code when it is loaded; {ACCEPTED}"
        raise RejectedFile(message, code="pickle")
    if starts_like_safetensors(head):
        return _sketch_arrays(DatasetFormat.SAFETENSORS, read_safetensors_header(path))
    raise RejectedFile(f"the file is no evaluation set that is known here; {ACCEPTED}", code="unknown-format")


def _inspect_zip(path: Path) -> DatasetSketch:
    members = [each for each in list_zip(path) if not is_litter(each.filename)]
    kind = zip_kind(members)
    if kind is DatasetFormat.NPZ:
        return _sketch_arrays(kind, read_npz_headers(path, members))
    listing = list_images(members)
    return DatasetSketch(format=kind, samples=len(listing.images), class_counts=listing.class_counts)


def zip_kind(members: list[zipfile.ZipInfo]) -> DatasetFormat:
    """Whether a zip holds arrays or images; raises RejectedFile for neither."""
    names = [each.filename for each in members]
    if any(is_image(name) for name in names):
        return DatasetFormat.IMAGE_ZIP
    if any(name.endswith(SUFFIX) for name in names):
        return DatasetFormat.NPZ
    if any(name.rpartition("/")[2] in ("archive_format", "data.pkl") for name in names):
        raise RejectedFile(f"the file is a PyTorch file, not an evaluation set; {ACCEPTED}", code="model-as-dataset")
    raise RejectedFile(
        f"the zip holds neither arrays (.npy) nor images; save arrays with numpy.savez, or {LAYOUT}", code="no-arrays"
    )


def _sketch_arrays(kind: DatasetFormat, headers: Mapping[str, ArrayHeader]) -> DatasetSketch:
    samples = sample_count(headers)
    labels = label_name(headers)
    arrays = {
        name: ArraySketch(shape=each.shape[1:], dtype=each.dtype.name)
        for name, each in headers.items()
        if name != labels
    }
    return DatasetSketch(format=kind, arrays=arrays, samples=samples, labels=labels)


def _check_parquet(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        footer, magic = int.from_bytes(file.read(4), "little"), file.read(4)
    if size < SMALLEST_PARQUET or magic != PARQUET_MAGIC or footer > size - SMALLEST_PARQUET:
        raise RejectedFile("the Parquet file is cut off: its end is missing; send it once more", code="parquet-cut-off")
