import hashlib
import json
import pickle
import socket
import stat
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.client import ApiProblem, Client
from service.domain.states import UnitState
from service.store.folder_blobs import FolderBlobStore
from service.store.tables import DatasetRow, ModelRow, UnitRow
from tests.service.api.conftest import assert_problem, bearer_of
from tests.service.api.files import (
    lying_npz,
    npz_bytes,
    onnx_bytes,
    pt2_bytes,
    safetensors_bytes,
    savez,
    zip_bomb,
    zip_bytes,
)
from tests.service.api.server import serving


def test_a_model_is_stored_once_and_checked(service):
    first = service.http.post("/v1/models?name=net", content=onnx_bytes())
    assert first.status_code == 201
    model = first.json()
    assert first.headers["location"] == f"/v1/models/{model['id']}"
    assert (model["state"], model["format"], model["name"]) == ("checking", "onnx", "net")
    assert model["sha256"] == hashlib.sha256(onnx_bytes()).hexdigest()
    assert service.blobs.read(model["sha256"]) == onnx_bytes()
    assert service.hints.published == ["onnxruntime"]

    again = service.http.post("/v1/models?name=other", content=onnx_bytes())
    assert again.status_code == 200
    assert again.json() == model == service.http.get(first.headers["location"]).json()
    with service.database.read() as session:
        assert [(unit.kind, unit.state) for unit in session.query(UnitRow)] == [("check_model", UnitState.QUEUED)]
    assert list(service.blobs.incoming.iterdir()) == []


def test_a_dataset_is_one_for_each_preprocessing(service):

    def upload(preprocessing: str | None = None):
        query = {"name": "eval"} | ({"preprocessing": preprocessing} if preprocessing else {})
        return service.http.post("/v1/datasets", content=npz_bytes(), params=query)

    plain = upload()
    scaled = upload('{"scale": 0.5, "layout": "NHWC"}')
    same = upload('{"layout":"NHWC","scale":5e-1}')
    assert [each.status_code for each in (plain, scaled, same)] == [201, 201, 200]
    assert plain.json()["id"] != scaled.json()["id"] == same.json()["id"]
    assert scaled.json()["preprocessing"]["scale"] == 0.5
    info = plain.json()["info"]
    assert (info["samples"], info["has_labels"], info["arrays"]["input"]["shape"]) == (4, True, [3])
    assert service.hints.published == ["data", "data"]


def test_a_torch_export_archive_is_taken_on_loopback(service):
    assert service.http.post("/v1/models?name=net", content=pt2_bytes()).json()["format"] == "pt2"
    assert service.hints.published == ["torch"]


def test_a_torch_export_archive_is_refused_where_the_operator_did_not_allow_it(service):
    closed = service.settings.model_copy(update={"allow_pt2": False})
    service.http.app.state.services = type(service.http.app.state.services)(
        closed, service.database, service.blobs, service.hints
    )
    response = service.http.post("/v1/models?name=net", content=pt2_bytes())
    assert_problem(response, 403, "pt2-not-allowed", "can run code")
    service.assert_nothing_left()


IMAGE = b"\x89PNG\r\n\x1a\n....."
LINK = stat.S_IFLNK | 0o777
BAD_MODELS = {
    "empty": (b"", "rejected-file", "the body is empty"),
    "pickle": (pickle.dumps([1]), "pickle", "pickle"),
    "torch_save": (zip_bytes({"net/data.pkl": b"x"}), "pickle", "torch.save"),
    "torchscript": (zip_bytes({"net/constants.pkl": b"x", "net/code/a.py": b"x"}), "torchscript", "TorchScript"),
    "safetensors": (safetensors_bytes({}), "weights-only", "no network"),
    "web_page": (b"<!doctype html><html>", "web-page", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "lfs-pointer", "git lfs pull"),
    "text": (b"hello, this is no model\n", "not-a-model", "send an ONNX file"),
    "npz": (npz_bytes(), "not-a-model", ".npz"),
    "cut_off": (b"\x08\x08\x3a\xff\x01abc", "onnx-cut-off", "cut off"),
    "cut_off_zip": (pt2_bytes()[:60], "zip-damaged", "damaged or cut off"),
    "escaping_zip": (zip_bytes({"../x": b""}), "zip-escape", "leads out"),
}
BAD_DATASETS = {
    "empty": (b"", "rejected-file", "the body is empty"),
    "pickle": (pickle.dumps([1]), "pickle", "pickle"),
    "plain_npy": (b"\x93NUMPY\x01\x00", "plain-npy", "numpy.savez"),
    "objects": (savez({"input": np.array([{}, 1], object)}), "object-array", "'input'"),
    "header_that_lies": (lying_npz(), "array-size", "'input'"),
    "different_lengths": (
        savez({"input": np.zeros((4, 3)), "labels": np.zeros(3, np.int64)}),
        "different-lengths",
        "labels",
    ),
    "safetensors_beyond_its_end": (
        safetensors_bytes({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
        "safetensors-header",
        "holds 0 bytes",
    ),
    "safetensors_header": (safetensors_bytes(b"{nonsense"), "safetensors-header", "not valid JSON"),
    "parquet_cut_off": (b"PAR1" + b"\0" * 20, "parquet-cut-off", "its end is missing"),
    "zip_of_text": (zip_bytes({"a.txt": b"x"}), "no-arrays", "neither arrays"),
    "images_without_folders": (zip_bytes({"a.png": IMAGE}), "no-class-folder", "no class folder"),
    "link": (zip_bytes({"cat/a.png": b"/etc/passwd"}, mode=LINK), "zip-link", "symbolic link"),
    "escape": (zip_bytes({"../cat/a.png": IMAGE}), "zip-escape", "leads out"),
    "bomb": (zip_bomb(), "zip-bomb", "300000000 bytes when unpacked"),
    "unknown": (b"1,2,3\n4,5,6\n", "unknown-format", "Parquet"),
}


@pytest.mark.parametrize(("content", "code", "words"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_is_named_and_leaves_nothing(service, content, code, words):
    assert_problem(service.http.post("/v1/models?name=net", content=content), 422, code, words)
    service.assert_nothing_left()


@pytest.mark.parametrize(("content", "code", "words"), BAD_DATASETS.values(), ids=BAD_DATASETS)
def test_a_bad_dataset_is_named_and_leaves_nothing(service, content, code, words):
    assert_problem(service.http.post("/v1/datasets?name=eval", content=content), 422, code, words)
    service.assert_nothing_left()


@pytest.mark.parametrize("noun", ["models", "datasets"])
def test_a_form_is_refused_with_the_way_to_do_it(service, noun):
    response = service.http.post(f"/v1/{noun}?name=x", files={"file": onnx_bytes()})
    assert_problem(response, 422, "form-upload", "--upload-file")
    service.assert_nothing_left()


@pytest.mark.parametrize("noun", ["models", "datasets"])
def test_too_large_by_its_header(service, noun):
    response = service.http.post(f"/v1/{noun}?name=x", content=b"x" * 70_000)
    assert_problem(response, 413, "too-large", "bytes that this service takes")
    service.assert_nothing_left()


@pytest.mark.parametrize("noun", ["models", "datasets"])
def test_too_large_by_its_bytes(service, noun):
    response = service.http.post(f"/v1/{noun}?name=x", content=(b"x" * 10_000 for _ in range(7)))
    assert_problem(response, 413, "too-large")
    service.assert_nothing_left()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "name"),
        ("?name=", "name"),
        ("?name=" + "x" * 201, "name"),
        ("?name=a%00b", "name"),
        ("?name=a%0ab", "name"),
    ],
)
@pytest.mark.parametrize("noun", ["models", "datasets"])
def test_a_name_is_printable_text(service, noun, query, field):
    document = assert_problem(service.http.post(f"/v1/{noun}{query}", content=onnx_bytes()), 422, "invalid-input")
    assert document["errors"][0]["field"] == field
    service.assert_nothing_left()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{", "preprocessing"),
        ("[]", "preprocessing"),
        ('{"layout": "NWHC"}', "preprocessing.layout"),
        ('{"sacle": 2}', "preprocessing.sacle"),
        ('{"scale": 0}', "preprocessing.scale"),
        ('{"std": [0.5, 0]}', "preprocessing.std.1"),
    ],
)
def test_a_wrong_preprocessing_is_named(service, text, field):
    response = service.http.post("/v1/datasets", content=npz_bytes(), params={"preprocessing": text, "name": "eval"})
    document = assert_problem(response, 422, "bad-preprocessing", "preprocessing")
    assert document["errors"][0]["field"] == field
    service.assert_nothing_left()


def test_a_client_that_goes_away_leaves_nothing(service, settings):
    with serving(create_app(settings, service.database, service.blobs, service.hints)) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = f"POST /v1/models?name=x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 40000\r\n"
            head += f"Authorization: {bearer_of(settings)['Authorization']}\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 20_000)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            assert b" 200 " in connection.recv(1000)
    service.assert_nothing_left()


def test_a_full_disk_is_said_and_leaves_nothing(service, monkeypatch):
    import errno

    from service.store.blobs import BlobWriter

    def full(self, chunk):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(BlobWriter, "write", full)
    assert_problem(service.http.post("/v1/models?name=x", content=onnx_bytes()), 503, "storage-full")
    service.assert_nothing_left()


def test_the_broker_may_be_away(service, monkeypatch):
    def down(*args, **kwargs):
        raise ConnectionError("refused")

    monkeypatch.setattr(service.hints._celery, "send_task", down)
    assert service.http.post("/v1/models?name=x", content=onnx_bytes()).status_code == 201


@pytest.mark.parametrize("noun", ["models", "datasets"])
def test_lists_go_page_by_page(service, noun):
    ids = [service.model() if noun == "models" else service.dataset() for _ in range(3)]
    first = service.http.get(f"/v1/{noun}?limit=2").json()
    rest = service.http.get(f"/v1/{noun}", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [each["id"] for each in first["items"] + rest["items"]] == ids[::-1]
    assert rest["next_cursor"] is None
    assert_problem(service.http.get(f"/v1/{noun}?cursor=abc"), 422, "invalid-input", "cursor")
    assert_problem(service.http.get(f"/v1/{noun}?limit=0"), 422, "invalid-input", "limit")


@pytest.mark.parametrize("noun", ["model", "dataset"])
@pytest.mark.parametrize("unknown", ["x", "mdl_000000000000", "a%00b", "%F0%9F%98%80"])
def test_what_is_not_there_is_404(service, noun, unknown):
    for method in ("GET", "DELETE"):
        assert_problem(service.http.request(method, f"/v1/{noun}s/{unknown}"), 404, f"{noun}-not-found")


def test_deleting(service):
    sweep = service.sweep().json()
    model, dataset = sweep["model"], sweep["dataset"]
    assert_problem(service.http.delete(f"/v1/models/{model}"), 409, "model-in-use", "1 sweep")
    assert_problem(service.http.delete(f"/v1/datasets/{dataset}"), 409, "dataset-in-use", "1 sweep")
    service.http.post(f"/v1/sweeps/{sweep['id']}/cancel")
    assert service.http.delete(f"/v1/sweeps/{sweep['id']}").status_code == 204
    assert service.http.delete(f"/v1/models/{model}").status_code == 204
    assert service.http.delete(f"/v1/datasets/{dataset}").status_code == 204
    with service.database.read() as session:
        assert [session.query(table).count() for table in (ModelRow, DatasetRow, UnitRow)] == [0, 0, 0]


def test_leftovers_of_a_crash_are_removed_at_the_next_start(settings, database):
    import os

    from fastapi.testclient import TestClient

    blobs = FolderBlobStore(settings.data_dir / "blobs")
    old = blobs.incoming / "half"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    with TestClient(create_app(settings, database, blobs), base_url="http://127.0.0.1"):
        assert not old.exists()


def test_info_is_json(service):
    assert json.dumps(service.http.get(f"/v1/datasets/{service.dataset()}").json()["info"])


def test_the_same_bytes_at_the_same_time_give_one_model(service, settings):
    app = create_app(settings, service.database, service.blobs, service.hints)
    with serving(app) as port, ThreadPoolExecutor(8) as pool:
        url, headers = f"http://127.0.0.1:{port}/v1/models?name=x", bearer_of(settings)
        responses = list(pool.map(lambda _: httpx.post(url, content=onnx_bytes(), headers=headers), range(16)))
    assert sorted(each.status_code for each in responses) == [200] * 15 + [201]
    assert len({each.json()["id"] for each in responses}) == 1


def test_a_sender_of_far_too_much_reads_why(service, settings, tmp_path):
    large = tmp_path / "large.onnx"
    large.write_bytes(b"x" * 50_000_000)
    app = create_app(settings, service.database, service.blobs, service.hints)
    key = settings.key_file.read_text().strip()
    with serving(app) as port, Client(f"http://127.0.0.1:{port}", key=key) as client:
        for _ in range(5):
            with pytest.raises(ApiProblem) as refused:
                client.upload_model(large)
            assert (refused.value.status, refused.value.code) == (413, "too-large")
    service.assert_nothing_left()
