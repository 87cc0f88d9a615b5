"""The file formats that are taken, and how names from a file are shown to a person."""

from enum import StrEnum


class ModelFormat(StrEnum):
    """Of a model file."""

    ONNX = "onnx"
    PT2 = "pt2"


class DatasetFormat(StrEnum):
    """Of an evaluation set."""

    NPZ = "npz"
    SAFETENSORS = "safetensors"
    PARQUET = "parquet"
    IMAGE_ZIP = "image_zip"


LONGEST_SHOWN_NAME = 80


def quoted(name: str) -> str:
    """A name out of a file, escaped and shortened for a message."""
    shown = name if len(name) <= LONGEST_SHOWN_NAME else name[:LONGEST_SHOWN_NAME] + "…"
    return repr(shown)
