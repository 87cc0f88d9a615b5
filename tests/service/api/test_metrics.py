"""What Prometheus reads, by its own parser."""

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert

from service.app import create_app
from service.domain.states import SweepState, UnitState
from service.settings import Settings
from service.store import measures
from service.store.database import Database
from service.store.tables import ModelRow, ProjectRow, SweepRow, UnitRow
from tests.service.api.conftest import Service, assert_problem

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(service: Service) -> Samples:
    response = service.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(response.text))
    assert all(each.documentation for each in families)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for each in families for s in each.samples}


def test_the_numbers_are_those_of_the_rows(service: Service):
    sweep = service.sweep().json()["id"]
    service.worker(onnxruntime=True)
    with service.database.write() as session:
        (unit,) = session.query(UnitRow).filter_by(sweep_id=sweep)
        unit.created_at -= 100
        for row in session.query(UnitRow).filter(UnitRow.sweep_id.is_(None)):
            row.attempts, row.started_at, row.finished_at = 2, unit.created_at + 90, unit.created_at + 94
        size = sum(row.size for row in session.query(ModelRow))
    found = scraped(service)
    waiting = (("kind", "prepare"), ("queue", "onnxruntime"), ("state", "queued"))
    checked = (("kind", "check_model"), ("queue", "onnxruntime"), ("state", "done"))
    assert found["quantsieve_units", waiting] == 1
    assert found["quantsieve_units", checked] == 1
    assert found["quantsieve_unit_attempts", checked] == 2
    assert found["quantsieve_recent_units", (("backend", ""), ("kind", "check_model"))] == 1
    assert found["quantsieve_recent_unit_seconds", (("backend", ""), ("kind", "check_model"))] == pytest.approx(4)
    assert 100 <= found["quantsieve_oldest_queued_unit_age_seconds", (("queue", "onnxruntime"),)] < 200
    assert found["quantsieve_sweeps", (("state", "queued"),)] == 1
    assert found["quantsieve_sweeps", (("state", "failed"),)] == 0
    assert found["quantsieve_backend_workers", (("backend", "onnxruntime"),)] == 1
    assert found["quantsieve_workers", (("state", "refused"),)] == 0
    assert found["quantsieve_stored_bytes", (("project", "default"),)] > size > 0


def test_what_is_done_shows_with_the_backend_of_its_sweep(service: Service):
    sweep = service.sweep().json()["id"]
    with service.database.write() as session:
        (unit,) = session.query(UnitRow).filter_by(sweep_id=sweep)
        unit.state, unit.started_at, unit.finished_at = UnitState.DONE, unit.created_at, unit.created_at + 3
        session.get_one(SweepRow, sweep).state = SweepState.RUNNING
    found = scraped(service)
    assert found["quantsieve_recent_unit_seconds", (("backend", "onnxruntime"), ("kind", "prepare"))] == pytest.approx(
        3
    )
    assert not any(name == "quantsieve_oldest_queued_unit_age_seconds" for name, _ in found)


def test_only_the_largest_projects_are_named(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measures, "MOST_PROJECTS", 2)
    with service.database.write() as session:
        for size in (1, 20, 3, 40):
            name = f"p{size}"
            session.execute(insert(ProjectRow).values(id=name, created_at=0.0))
            values = {"id": f"mdl_{size}", "project_id": name, "sha256": "a" * 64, "size": size, "name": "m"}
            session.execute(insert(ModelRow).values(**values, format="onnx", state="ready", info={}, created_at=0.0))
    found = {labels[0][1]: value for (name, labels), value in scraped(service).items() if "stored" in name}
    assert found == {"p40": 40, "p20": 20, measures.OTHERS: 4}


def test_it_needs_a_key_unless_the_operator_says_otherwise(service: Service, settings: Settings, database: Database):
    assert_problem(service.http.get("/metrics", headers={"Authorization": ""}), 401, "key-missing")
    public = create_app(settings.model_copy(update={"public_metrics": True}), database, service.blobs, service.hints)
    with TestClient(public, base_url="http://127.0.0.1:8080") as http:
        assert http.get("/metrics").status_code == 200
        assert http.get("/v1/workers").status_code == 401
