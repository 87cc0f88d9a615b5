"""Over HTTP: a model with a real custom operator is swept where the operator of the service set its library."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live_service import LiveService, live_service
from tests.workers.installation import npz_bytes
from tests.workers.plugins import LAYERS, broken_library, library, model_bytes, samples


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    folder = tmp_path_factory.mktemp("service")
    with live_service(folder, custom_op_libraries=(broken_library(folder), library())) as made:
        yield made


def test_the_sweep_ends_with_the_plugin_in_its_table_and_a_job_names_no_library(service: LiveService) -> None:
    model, dataset = service.ready("models", model_bytes()), service.ready("datasets", npz_bytes(x=samples()))
    asked = {"model": model, "dataset": dataset, "metric": {"name": "mse"}}
    final = service.sweep(**asked)
    assert final["state"] == "succeeded", final["problem"]
    rows = service.http.get(f"/v1/sweeps/{final['id']}/layers").json()["layers"]
    operations = {each["layer"]["id"]: each["layer"]["op"] for each in rows}
    assert set(operations) == set(LAYERS)
    assert operations["split"] == "Plugin"

    for attempt in ({"custom_op_libraries": ["/tmp/mine.so"]}, {"libraries": {"onnxruntime": ["/tmp/mine.so"]}}):
        refused = service.http.post("/v1/sweeps", json=asked | attempt)
        assert refused.status_code == 422
        assert next(iter(attempt)) in refused.text


def test_the_worker_tells_its_libraries_and_goes_on_without_the_broken_one(service: LiveService) -> None:
    service.ready("datasets", npz_bytes())  # a worker is there
    (worker,) = service.http.get("/v1/workers").json()["items"]
    broken, good = worker["capabilities"]["onnxruntime"]["libraries"]
    assert (Path(broken["path"]).name, broken["sha256"]) == ("broken.so", None)
    assert "broken.so" in broken["reason"]
    assert good["path"] == str(library())
    assert good["reason"] is None


def test_what_an_upload_says_of_libraries_is_not_listened_to(service: LiveService) -> None:
    """Neither as a parameter nor in the file: operators that no set library has stay unknown."""
    unknown = model_bytes().replace(b"NegPos", b"Nobody")
    found = service.checked("models", unknown, custom_op_libraries=str(library()))
    assert found["state"] == "rejected"
    assert "ai.onnx.contrib::Nobody" in found["problem"]
    assert "QUANTSIEVE_CUSTOM_OP_LIBRARIES names broken.so (not loaded" in found["problem"]
