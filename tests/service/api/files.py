"""Small uploads, good and bad, made without the libraries that read them."""

import io
import json
import stat
import struct
import zipfile

import numpy as np


def onnx_bytes(seed: int = 0) -> bytes:
    """A ModelProto as its top-level fields show: ir_version, a producer that makes it unique, an empty graph."""
    producer = f"test {seed}".encode()
    return b"\x08\x08" + b"\x12" + bytes([len(producer)]) + producer + b"\x3a\x00"


def pt2_bytes() -> bytes:
    return zip_bytes({"net/archive_format": b"pt2", "net/models/model.json": b"{}"})


def zip_bytes(
    members: dict[str, bytes], *, mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_STORED
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode << 16, method
            archive.writestr(entry, content)
    return out.getvalue()


def npz_bytes(seed: int = 0, *, labels: bool = True, samples: int = 4) -> bytes:
    arrays = {"input": np.full((samples, 3), seed, np.float32)}
    if labels:
        arrays["labels"] = np.zeros(samples, np.int64)
    return savez(arrays)


def savez(arrays: dict[str, np.ndarray]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def lying_npz() -> bytes:
    """128 bytes of header that claim 745 GiB."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": (200_000_000_000,)})
    return zip_bytes({"input.npy": out.getvalue()})


def safetensors_bytes(header: dict | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def zip_bomb() -> bytes:
    """An image of 1 kB whose listing says that 300 MB come out of it."""
    content = bytearray(zip_bytes({"cat/a.png": b"\0" * 1000}, method=zipfile.ZIP_DEFLATED))
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 300_000_000)
    return bytes(content)
