"""A worker whose code is older than the database takes nothing, says why, and the work waits for the right release."""

import time
from pathlib import Path

from sqlalchemy import text

from service.store.installation import code_speaks
from tests.live_service import LiveService, live_service
from tests.workers.installation import onnx_bytes


def set_schema(service: LiveService, revision: str | None) -> None:
    with service.database.write() as session:
        session.execute(text("update alembic_version set version_num = :revision"), {"revision": revision})


def refused(service: LiveService) -> list[str | None]:
    return [each["refused"] for each in service.http.get("/v1/workers").raise_for_status().json()["items"]]


def until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def test_a_worker_of_an_older_release_is_refused_and_the_units_wait(tmp_path: Path):
    with live_service(tmp_path, heartbeat_seconds=0.5, log_format="json") as service:
        until(lambda: refused(service) == [None])
        ours = code_speaks().schema
        set_schema(service, "9999")  # as the migrations of a newer release leave it
        words = f"version skew detected and refused: the code is for schema {ours}, and the database is at 9999"
        assert all(words in (each or "") for each in refused(service))
        model = service.upload("models", onnx_bytes()).json()["id"]
        log = tmp_path / "data" / "logs" / "worker.log"
        until(lambda: f'"message": "no unit of queue onnxruntime is taken: {words}' in log.read_text())
        assert '"worker": "wrk_' in log.read_text()
        assert service.http.get(f"/v1/models/{model}").json()["state"] == "checking"
        metrics = service.http.get("/metrics").text
        assert 'quantsieve_workers{state="refused"} 1.0' in metrics
        assert 'quantsieve_units{kind="check_model",queue="onnxruntime",state="queued"} 1.0' in metrics
        set_schema(service, ours)
        assert service.ready("models", onnx_bytes()) == model
        assert refused(service) == [None]
