"""A model whose weights lie in external data, as one over 2 GB must: sent as a zip, through HTTP to a layer table."""

import os
import stat
import zipfile
from collections.abc import Iterator

import pytest

from tests.live_service import LiveService, live_service
from tests.service.api.files import zip_bytes
from tests.small_network import network, npz, weight_data
from workers.models.private_folder import FOLDER_PREFIX

PLAIN = network()
MOVED_OUT = network(external="weights/all.bin").SerializeToString()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    with live_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_the_table_is_that_of_the_model_with_its_weights_inside(service: LiveService, method: int) -> None:
    zipped = zip_bytes({"net/net.onnx": MOVED_OUT, "net/weights/all.bin": weight_data(PLAIN)}, method=method)
    tables = []
    for content in (PLAIN.SerializeToString(), zipped):
        model, dataset = service.ready("models", content), service.ready("datasets", npz())
        done = service.sweep(model=model, dataset=dataset, backend="onnxruntime")
        assert done["state"] == "succeeded", done["problem"]
        document = service.http.get(f"/v1/sweeps/{done['id']}/layers").json()
        tables.append([(each["layer"]["name"], each["score"]["measures"]) for each in document["layers"]])
    assert [name for name, _ in tables[0]]
    assert tables[0] == tables[1]
    assert not list(service.temporary.rglob(f"{FOLDER_PREFIX}*"))


def test_the_same_zip_is_one_model_of_the_format_onnx(service: LiveService) -> None:
    zipped = zip_bytes({"net.onnx": MOVED_OUT, "weights/all.bin": weight_data(PLAIN)})
    first, second = (service.upload("models", zipped) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert first.json()["format"] == "onnx"


def test_a_link_in_the_zip_is_refused_at_once(service: LiveService) -> None:
    before = service.kept()
    response = service.upload("models", zip_bytes({"net.onnx": MOVED_OUT}, mode=stat.S_IFLNK | 0o777))
    assert (response.status_code, response.json()["type"]) == (422, "urn:quantsieve:problem:zip-link")
    assert service.kept() == before


def test_weights_beside_the_stored_file_cannot_be_reached(service: LiveService) -> None:
    """An upload is stored in a folder with those of others: their names must be no way to read them."""
    secret = service.ready("datasets", npz())
    stored = service.http.get(f"/v1/datasets/{secret}").json()["sha256"]
    for location in (stored, f"../{stored[:2]}/{stored}", os.fspath(service.blobs.path(stored))):
        document = service.checked("models", network(external=location).SerializeToString())
        assert document["state"] == "rejected"
        assert "which was not uploaded; send a zip" in document["problem"]
