"""Opens an evaluation set of any format. Samples are read as they are asked for, in bounded memory."""

from pathlib import Path

from service.inspection.formats import DatasetFormat
from workers.data.image_zip import ImageZip
from workers.data.npz import open_npz
from workers.data.parquet import open_parquet
from workers.data.safetensors_file import open_safetensors
from workers.data.stored import ArraySpec, EvaluationSet

__all__ = ["ArraySpec", "EvaluationSet", "open_evaluation_set"]


def open_evaluation_set(path: Path, format: str) -> EvaluationSet:
    """Open an evaluation set of a DatasetFormat; raises RejectedFile where it cannot be read."""
    match DatasetFormat(format):
        case DatasetFormat.NPZ:
            return open_npz(path)
        case DatasetFormat.SAFETENSORS:
            return open_safetensors(path)
        case DatasetFormat.PARQUET:
            return open_parquet(path)
        case DatasetFormat.IMAGE_ZIP:
            return ImageZip(path)
