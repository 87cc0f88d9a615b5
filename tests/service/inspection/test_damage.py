"""However a file is damaged, a look at it ends in a verdict: it is taken, or refused in words for its sender."""

import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.errors import RejectedFile
from service.inspection.dataset_files import inspect_dataset
from service.inspection.model_files import inspect_model
from tests.service.api.files import onnx_bytes, pt2_bytes, safetensors_bytes, savez, zip_bytes

ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
FILES = {
    "npz": savez({"x": np.zeros((4, 3), np.float32), "labels": np.zeros(4, np.int64)}),
    "safetensors": safetensors_bytes({"x": ENTRY}, b"\0" * 24),
    "images": zip_bytes({"cat/1.png": b"x", "dog/2.png": b"y"}, method=zipfile.ZIP_DEFLATED),
    "onnx": onnx_bytes(),
    "pt2": pt2_bytes(),
    "onnx_zip": zip_bytes({"net.onnx": onnx_bytes(), "w.bin": b"xyz"}, method=zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("inspect", [inspect_dataset, inspect_model])
@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_never_an_error_of_ours(
    inspect: Callable[[Path], object], content: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(content)
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        damaged[place] = value
    start = data.draw(st.sampled_from([0, 0, 0, 1, 8]))
    with tempfile.NamedTemporaryFile() as file:
        file.write(damaged[start : data.draw(st.integers(start, len(content)))])
        file.flush()
        with suppress(RejectedFile):
            inspect(Path(file.name))
