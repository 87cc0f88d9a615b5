"""Files that are meant to do harm, sent through HTTP to a running service: each has its answer, and nothing stays.

What a look at the bytes shows is refused at once. What only a parser meets ends in a sandbox, as a rejection.
"""

import io
import re
import socket
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.hostile import onnx_files as onnx
from tests.hostile.archives import RAN, attacking_pt2, with_samples
from tests.live_service import LiveService
from tests.service.api.files import lying_npz, pt2_bytes, savez, zip_bomb, zip_bytes
from tests.small_network import network, npz, samples

MODEL = network().SerializeToString()


def npy(header: bytes, data: bytes = b"") -> bytes:
    """An .npz whose one array has this header."""
    text = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    return zip_bytes({"x.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data})


def lying_listing() -> bytes:
    """A zip whose listing says that one byte comes out where it is 64 MiB."""
    content = bytearray(zip_bytes({"x.npy": b"\0" * 2**26}, method=zipfile.ZIP_DEFLATED))
    at = content.rfind(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 1)
    return bytes(content)


def nested_quines() -> bytes:
    inner = zip_bytes({"net.onnx": MODEL})
    for _ in range(20):
        inner = zip_bytes({"net.zip": inner})
    return inner


AT_ONCE = {
    "a pickle in a .pt2's clothes": (
        "models",
        zip_bytes({"net/data.pkl": b"\x80\x02.", "net/version": b"3"}),
        "pickle",
    ),
    "a zip bomb of images": ("datasets", zip_bomb(), "unpack|200 times"),
    "a listing that lies": ("datasets", lying_listing(), "array|npy|damaged|200 times"),
    "a zip in a zip in a zip": ("models", nested_quines(), "no model|holds"),
    "a symlink": (
        "models",
        zip_bytes({"net.onnx": MODEL, "w.bin": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777),
        "link",
    ),
    "a header of more than there is": ("datasets", lying_npz(), "claims 800000000000 bytes"),
    "a header with code": (
        "datasets",
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').system('id'),)}"),
        "header",
    ),
    "a header of negative sizes": (
        "datasets",
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}"),
        "shape|header",
    ),
    "a header whose sizes overflow": (
        "datasets",
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"),
        "claims|size",
    ),
    "a header nested too deeply": (
        "datasets",
        npy(b"{'descr': " + b"[" * 5000 + b"]" * 5000 + b", 'fortran_order': False, 'shape': (1,)}"),
        "header",
    ),
    "pickled objects": ("datasets", savez({"x": np.array([{}], object)}), "numeric dtype"),
    "an empty set": ("datasets", npz(x=samples(0)), "0 samples"),
    "a set of nothing": ("datasets", savez({}), "no|empty|hold"),
}


@pytest.mark.parametrize(("noun", "content", "words"), AT_ONCE.values(), ids=AT_ONCE)
def test_it_is_refused_at_once(service: LiveService, noun: str, content: bytes, words: str) -> None:
    before = service.kept()
    response = service.upload(noun, content)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert re.search(words, response.json()["detail"]), response.text
    assert service.kept() == before


IN_A_SANDBOX = {
    "a cyclic graph": (onnx.cyclic, "sorted"),
    "a hundred thousand nodes": (onnx.many_nodes, "more than 100000 nodes"),
    "a function that calls itself": (onnx.recursive_function, "function 'f[01]' calls itself"),
    "a billion laughs": (onnx.billion_laughs, "more than 100000 nodes"),
    "branches that double": (onnx.doubling_subgraphs, "more than 100000 nodes|not an ONNX model"),
    "dimensions of more than there is": (lambda: onnx.lying_initializer([2**40, 2**20]), "checker refuses|fill"),
    "dimensions that overflow": (lambda: onnx.lying_initializer([2**62, 4]), "checker refuses|fill"),
    "negative dimensions": (lambda: onnx.lying_initializer([-4, -4]), "checker refuses|fill|shape"),
    "external data outside of the zip": (
        lambda: zip_bytes({"net.onnx": network(external="../../../etc/passwd").SerializeToString()}),
        "not in the zip",
    ),
    "external data by a symlink's name": (
        lambda: zip_bytes({"net.onnx": network(external="/proc/self/environ").SerializeToString()}),
        "not in the zip",
    ),
    "a pt2 without a program": (pt2_bytes, "cannot load this archive"),
    "a pt2 with half a pickle": (lambda: with_samples(b"\x80\x02"), "cannot load this archive"),
}


@pytest.mark.parametrize(("make", "words"), IN_A_SANDBOX.values(), ids=IN_A_SANDBOX)
def test_it_is_rejected_out_of_a_sandbox(service: LiveService, make: object, words: str) -> None:
    before = service.kept()
    assert callable(make)
    rejected = service.checked("models", make())
    assert rejected["state"] == "rejected", rejected
    assert re.search(words, rejected["problem"]), rejected["problem"]
    assert "checking failed" not in rejected["problem"]
    service.delete(f"/v1/models/{rejected['id']}")
    assert service.kept() == before
    assert service.http.get("/v1/models").status_code == 200


def test_a_pt2_that_runs_code_reaches_nothing(service: LiveService, tmp_path: Path) -> None:
    secret, target = tmp_path / "secret", tmp_path / "target"
    secret.write_text("secret")
    tmp_path.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        content = attacking_pt2(
            port=listener.getsockname()[1], secret=secret, target=target, data=service.blobs.folder.parent
        )
        rejected = service.checked("models", content)
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()
    assert rejected["state"] == "rejected"
    assert f"it ended with status {RAN}" in rejected["problem"], rejected["problem"]
    assert not target.exists()


NAMES = {
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "control": "a\x00b\x07\x1b[31mc\u202ed",
    "path": "../../../etc/passwd",
    "format": "{0.__class__}%s${HOME}`id`$(id)",
    "newlines": "a\nb\r\nSet-Cookie: x=y",
}


def test_names_that_are_code_somewhere_are_text_everywhere(service: LiveService) -> None:
    model = service.ready("models", onnx.renamed(lambda own: f"{''.join(NAMES.values())}{own}"))
    dataset = service.ready("datasets", npz())
    document = service.sweep(model=model, dataset=dataset, metric={"name": "mse"})
    assert document["state"] == "succeeded", document
    page = service.http.get(f"/v1/sweeps/{document['id']}/report.html").text
    assert "alert(1)" in page  # the name is there, as text
    for each in ("<script>alert", "<img src=x", "\x07", "\x1b", "\u202e"):
        assert each not in page
    for table in ("", "/layers", "/artifacts/trtexec.txt"):
        assert "set-cookie" not in service.http.get(f"/v1/sweeps/{document['id']}{table}").headers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_weights_that_are_no_numbers_end_a_sweep_in_words(service: LiveService, value: float) -> None:
    model = service.ready("models", onnx.with_values(value))
    dataset = service.ready("datasets", npz())
    document = service.sweep(model=model, dataset=dataset, metric={"name": "mse"})
    problem = document["problem"] or {}
    assert document["state"] in {"failed", "succeeded"}
    if document["state"] == "failed":
        assert re.search("finite|NaN|number|int8", problem["message"]), problem


def test_a_constant_of_terabytes_ends_a_sweep_in_words(service: LiveService) -> None:
    model = service.ready("models", onnx.huge_constant())
    dataset = service.ready("datasets", npz(x=np.ones((8, 4), np.float32)))
    document = service.sweep(model=model, dataset=dataset, metric={"name": "mse"})
    assert document["state"] == "failed"
    assert re.search("no layer can be measured in int8|does not run in fp32|memory", document["problem"]["message"]), (
        document["problem"]
    )


def test_the_service_is_up_after_all_of_this_and_still_sweeps(service: LiveService) -> None:
    out = io.BytesIO()
    np.savez(out, x=samples(8))
    model, dataset = service.ready("models", MODEL), service.ready("datasets", out.getvalue())
    assert service.sweep(model=model, dataset=dataset, metric={"name": "mse"})["state"] == "succeeded"
