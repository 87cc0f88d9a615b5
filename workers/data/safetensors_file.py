"""Opens .safetensors files, with all arrays mapped where they lie."""

from pathlib import Path

from service.inspection.arrays import sample_count
from service.inspection.safetensors_header import read_safetensors_header
from workers.data.array_set import ArraySet, map_array


def open_safetensors(path: Path) -> ArraySet:
    """Map all arrays; raises RejectedFile where the header does not fit the file."""
    headers = read_safetensors_header(path)
    sample_count(headers)
    return ArraySet.of({name: map_array(path, each, each.offset) for name, each in headers.items()})
