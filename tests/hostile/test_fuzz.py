"""Each parser on damaged files: it takes them, or refuses them in words. Never another error, never a hang.

``make test`` tries a few examples of each, always the same; ``make fuzz`` as many as FUZZ_EXAMPLES says.
"""

import io
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.domain.errors import InvalidInput
from service.inspection.calibration_cache import read_cache
from service.inspection.dataset_files import inspect_dataset
from service.inspection.model_files import inspect_model
from tests.service.api.files import safetensors_bytes, savez, zip_bytes
from tests.small_network import network, npz, weight_data
from workers.data.evaluation_set import open_evaluation_set
from workers.exports.model_file import open_upload
from workers.models.onnx_graph import read_onnx
from workers.sandbox.wire import HEAD, MAGIC, Channel, Closed, Garbled

EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
FUZZED = settings(
    max_examples=int(EXAMPLES or 15),
    derandomize=EXAMPLES is None,  # `make test` fails for what was changed, not for what was drawn
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (6, 6), (9, 9, 9)).save(out, "PNG")
    return out.getvalue()


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"x": [[1.0, 2.0], [3.0, 4.0]], "label": [0, 1]}), out)
    return out.getvalue()


def dataset(format: str) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        inspect_dataset(path)  # what it refuses never reaches the parser
        opened = open_evaluation_set(path, format)
        return opened.batch(np.arange(min(opened.samples, 4)))

    return read


def model(read: Callable[[Path], object]) -> Callable[[Path], object]:
    def checked(path: Path) -> object:
        inspect_model(path)
        return read(path)

    return checked


def cache(path: Path) -> object:
    return read_cache(path.read_bytes())


EXTERNAL = network(external="w.bin")
FILES: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "npz": (npz(), dataset("npz")),
    "deflated npz": (savez({"x": np.zeros((4, 3), np.float32)}), dataset("npz")),
    "safetensors": (
        safetensors_bytes({"x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, b"\0" * 24),
        dataset("safetensors"),
    ),
    "parquet": (parquet(), dataset("parquet")),
    "images": (zip_bytes({"cat/1.png": png(), "dog/2.png": png()}), dataset("image_zip")),
    "onnx": (network().SerializeToString(), model(lambda path: read_onnx(path, fuse_bn=True))),
    "onnx for conversion": (network().SerializeToString(), model(open_upload)),
    "onnx in a zip": (
        zip_bytes({"net.onnx": EXTERNAL.SerializeToString(), "w.bin": weight_data(network())}),
        model(lambda path: read_onnx(path, fuse_bn=True)),
    ),
    "calibration cache": (b"TRT-100300-EntropyCalibration2\nx: 3c010a14\ny: 3caa5bd6\n", cache),
}


@contextmanager
def as_file(content: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes changed, doubled or dropped, and now and then cut off."""
    found = bytearray(content)
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, max(len(found) - 1, 0)))
        match draw(st.integers(0, 3)):
            case 0 | 1:
                found[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 2:
                found[at:at] = found[at : at + draw(st.integers(1, 64))]
            case _:
                del found[at : at + draw(st.integers(1, 16))]
    return bytes(found[: draw(st.one_of(st.just(len(found)), st.integers(0, len(found))))])


@pytest.mark.parametrize(("content", "read"), FILES.values(), ids=FILES)
@FUZZED
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(content: bytes, read: Callable[[Path], object], data: st.DataObject) -> None:
    with as_file(data.draw(damaged(content))) as path, suppress(InvalidInput):
        read(path)


@FUZZED
@given(data=st.data())
def test_whatever_comes_out_of_a_sandbox_is_a_message_or_garbled(data: st.DataObject) -> None:
    import socket

    text = b'{"kind": "item", "document": null, "arrays": [{"name": "x", "dtype": "float32", "shape": [2, 2]}]}'
    frame = HEAD.pack(MAGIC, len(text)) + text + struct.pack("<4f", 1, 2, 3, 4)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data.draw(damaged(frame)))
        theirs.shutdown(socket.SHUT_WR)
        with suppress(Garbled, Closed):
            message = Channel(ours).receive(5)
            assert isinstance(message.kind, str)
            assert all(each.nbytes <= 2**10 for each in message.arrays.values())
