"""The images of a zip by class: one folder for each class."""

import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from service.domain.errors import RejectedFile
from service.inspection.formats import quoted

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LAYOUT = "put each image in a folder that is named after its class, as in cat/001.jpg and dog/002.jpg"
_PLAIN_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_LITTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class ImageListing:
    """The images in the order of the samples, and their labels.

    The classes take turns in the order, so that its first samples are of all classes. Labels count the folders in
    alphabetical order; where all folders are plain numbers (0, 1, … 10), the number is the label.
    ``class_names`` by label; None where the folders are numbers.
    """

    images: tuple[zipfile.ZipInfo, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...] | None
    class_counts: dict[str, int]


def is_litter(name: str) -> bool:
    """Whether an operating system put the file there unasked."""
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1].lower() in _LITTER or parts[-1].startswith("._")


def is_image(name: str) -> bool:
    """Whether the name is that of an image that can be decoded."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def list_images(members: Sequence[zipfile.ZipInfo]) -> ImageListing:
    """Sort the images of a zip into classes; raises RejectedFile where the folders do not tell them."""
    files = [(each.filename.split("/"), each) for each in members if not is_litter(each.filename)]
    if not files:
        raise RejectedFile(f"the zip holds no images; {LAYOUT}", code="no-images")
    if all(len(parts) > 2 for parts, _ in files) and len({parts[0] for parts, _ in files}) == 1:
        files = [(parts[1:], each) for parts, each in files]
    for parts, each in files:
        _check(parts, each)
    names = sorted({parts[0] for parts, _ in files})
    numbered = all(_PLAIN_NUMBER.fullmatch(name) for name in names)
    label_of = {name: int(name) if numbered else index for index, name in enumerate(names)}
    turns = {name: count() for name in names}
    files.sort(key=lambda file: file[0])
    ordered = sorted((next(turns[parts[0]]), label_of[parts[0]], index) for index, (parts, _) in enumerate(files))
    counts = Counter(parts[0] for parts, _ in files)
    return ImageListing(
        images=tuple(files[index][1] for _, _, index in ordered),
        labels=tuple(label for _, label, _ in ordered),
        class_names=None if numbered else tuple(names),
        class_counts={name: counts[name] for name in sorted(names, key=label_of.__getitem__)},
    )


def _check(parts: list[str], entry: zipfile.ZipInfo) -> None:
    shown = quoted(entry.filename)
    if not is_image(entry.filename):
        raise RejectedFile(
            f"{shown} in the zip is not an image ({', '.join(IMAGE_SUFFIXES)}); leave it out", code="not-an-image"
        )
    if len(parts) == 1:
        raise RejectedFile(f"{shown} in the zip is in no class folder; {LAYOUT}", code="no-class-folder")
    if len(parts) > 2:
        raise RejectedFile(f"{shown} in the zip lies too deep to tell its class; {LAYOUT}", code="nested-folders")
    if entry.file_size == 0:
        raise RejectedFile(f"{shown} in the zip is empty", code="empty-image")
