"""What holds for every request: health, problems, the guard, the OpenAPI document, what is imported, the client."""

import json
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.client import ApiProblem, Client
from service.domain.settings import Preprocessing, SweepSettings
from service.domain.states import ResourceState
from service.logs import Line
from service.settings import Settings
from service.store.database import Database
from service.store.tables import ModelRow, WorkerRow
from tests.service.api.conftest import assert_problem, client_of
from tests.service.api.files import npz_bytes, onnx_bytes
from tests.service.api.server import serving


def test_health_and_readiness(service):
    assert service.http.get("/healthz").json() == {"status": "ok"}
    assert service.http.get("/readyz").json() == {"status": "ok", "database": "ok", "files": "ok", "broker": "ok"}


def test_without_the_broker_it_is_degraded(service, monkeypatch):
    monkeypatch.setattr(service.hints, "answers", lambda: False)
    response = service.http.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")


def test_a_broker_that_is_down_is_noticed_soon(settings):
    from service.broker import Hints

    assert not Hints(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})).answers()


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none?connect_timeout=2", "sqlite:///{tmp}/empty.db"])
def test_without_the_database_it_starts_and_is_not_ready(tmp_path, url):
    settings = Settings(data_dir=tmp_path, database_url=url.format(tmp=tmp_path))
    with client_of(create_app(settings), settings) as http:
        assert http.get("/healthz").status_code == 200
        assert_problem(http.get("/readyz"), 503, "database-unavailable")
        assert_problem(http.get("/v1/sweeps"), 503, "database-unavailable")


def test_workers_that_live_are_listed(service):
    service.worker(torch=True)
    (worker,) = service.http.get("/v1/workers").json()["items"]
    assert worker["capabilities"]["torch"]["available"]
    assert worker["versions"] == {"quantsieve": "0"}
    service.set_row(WorkerRow, worker["id"], seen_at=0.0)
    assert worker["refused"] is None
    listed = service.http.get("/v1/workers").json()
    assert listed["items"] == []
    assert listed["api"]["schema_revision"] == listed["api"]["code_revision"]


def test_unknown_paths_and_methods_are_problems(service):
    assert_problem(service.http.get("/nothing"), 404, "no-such-path")
    response = service.http.put("/v1/models")
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"]


def test_an_error_of_our_own_shows_nothing_of_the_inside_and_is_logged_by_the_requests_id(service, monkeypatch, caplog):
    from service.store import workers

    def broken(session):
        raise RuntimeError("secret inside")

    caplog.handler.setFormatter(Line("json"))
    monkeypatch.setattr(workers, "live", broken)
    response = service.http.get("/v1/workers")
    assert_problem(response, 500, "internal-error")
    assert "secret" not in response.text
    said = next(each for each in caplog.text.splitlines() if "our own fault" in each)
    assert json.loads(said)["request"] == response.headers["X-Request-Id"]
    assert "secret inside" in said


def test_every_answer_has_the_security_headers(service):
    for path in ("/healthz", "/nothing", "/v1/models"):
        headers = service.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[::1"])
def test_a_rebound_name_does_not_reach_the_service(service, host):
    assert_problem(service.http.get("/healthz", headers={"Host": host}), 400, "bad-host")


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1", "[::1]:8080", "LOCALHOST"])
def test_loopback_names_reach_it(service, host):
    assert service.http.get("/healthz", headers={"Host": host}).status_code == 200


def test_on_an_open_address_any_name_reaches_it(settings, database):
    app = create_app(settings.model_copy(update={"host": "0.0.0.0", "require_keys": True}), database)
    with TestClient(app, base_url="http://api.example:8080") as http:
        assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://["])
def test_foreign_pages_may_change_nothing(service, origin):
    headers = {"Origin": origin}
    response = service.http.post("/v1/models?name=x", content=onnx_bytes(), headers=headers)
    assert_problem(response, 403, "cross-origin")
    assert_problem(service.http.delete("/v1/models/x", headers=headers), 403, "cross-origin")
    assert service.http.get("/v1/models", headers=headers).status_code == 200
    service.assert_nothing_left()


def test_our_own_page_may(service):
    headers = {"Origin": "http://127.0.0.1:8080"}
    assert service.http.post("/v1/models?name=x", content=onnx_bytes(), headers=headers).status_code == 201


def test_problems_are_documented(service):
    document = service.http.get("/openapi.json").json()
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert document["components"]["schemas"]["Problem"]
    for each in operations:
        schema = each["responses"]["422"]["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_api_loads_no_runtime():
    script = (
        "import sys, service.app\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'workers', 'pyarrow', 'PIL', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_client_does_it_all_over_a_real_connection(service, settings, tmp_path):
    model_file, data_file = tmp_path / "net.onnx", tmp_path / "eval.npz"
    model_file.write_bytes(onnx_bytes())
    data_file.write_bytes(npz_bytes())
    app = create_app(settings, service.database, service.blobs, service.hints)
    key = settings.key_file.read_text().strip()
    with serving(app) as port, Client(f"http://127.0.0.1:{port}", key=key) as client:
        model = client.upload_model(model_file)
        assert (model["name"], model["state"]) == ("net.onnx", "checking")
        dataset = client.upload_dataset(data_file, "eval", Preprocessing(scale=0.5))
        service.set_row(ModelRow, model["id"], state=ResourceState.READY)
        assert client.wait_ready(model)["state"] == "ready"
        sweep = client.create_sweep(SweepSettings(model=model["id"], dataset=dataset["id"]), idempotency_key="k")
        seen = []
        with pytest.raises(TimeoutError):
            client.wait(sweep["id"], seen.append, timeout=0)
        assert seen[0]["id"] == sweep["id"]
        with pytest.raises(ApiProblem) as not_ready:
            client.report(sweep["id"], "html")
        assert (not_ready.value.status, not_ready.value.code) == (409, "report-not-ready")
        assert client.cancel(sweep["id"])["state"] == "cancelled"
        assert client.wait(sweep["id"])["state"] == "cancelled"
        model_file.write_bytes(b"x" * 100_000)
        with pytest.raises(ApiProblem) as too_large:
            client.upload_model(model_file)
        assert too_large.value.code == "too-large"
        with pytest.raises(ApiProblem) as wrong:
            client.create_sweep(SweepSettings(model="x", dataset=dataset["id"]))
        assert wrong.value.field == "model"


def test_the_client_says_where_it_found_no_service():
    with Client("http://127.0.0.1:1") as client, pytest.raises(ApiProblem, match="no answer from"):
        client.sweep("x")


def test_a_database_is_closed_only_by_the_one_who_opened_it(settings, database: Database):
    with TestClient(create_app(settings, database), base_url="http://127.0.0.1"):
        pass
    database.ping()
