from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import update

from service.app import create_app
from service.broker import Hints
from service.domain.settings import BackendName
from service.domain.states import ResourceState, UnitState
from service.settings import Settings
from service.store import workers
from service.store.database import Database
from service.store.folder_blobs import FolderBlobStore
from service.store.tables import CalibrationRow, ConversionRow, DatasetRow, ModelRow, SweepRow, UnitRow
from service.store.workers import Heartbeat
from tests.service.api.files import npz_bytes, onnx_bytes
from tests.stored_files import stored_files


class CountingHints(Hints):
    """The real thing on the filesystem transport; it remembers what the broker took."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.published: list[str] = []

    def publish(self, queue: str, count: int = 1) -> bool:
        taken = super().publish(queue, count)
        if taken:
            self.published.append(queue)
        return taken


@dataclass
class Service:
    """A running application with what is behind it."""

    http: TestClient
    settings: Settings
    database: Database
    blobs: FolderBlobStore
    hints: CountingHints
    _made: int = field(default=0)

    def model(self, *, ready: bool = True) -> str:
        self._made += 1
        response = self.http.post("/v1/models?name=net", content=onnx_bytes(self._made))
        assert response.status_code == 201, response.text
        return self._checked(ModelRow, response, ready)

    def dataset(self, *, ready: bool = True, labels: bool = True) -> str:
        self._made += 1
        response = self.http.post("/v1/datasets?name=eval", content=npz_bytes(self._made, labels=labels))
        assert response.status_code == 201, response.text
        return self._checked(DatasetRow, response, ready)

    def calibration(self) -> str:
        self._made += 1
        content = f"TRT-100300-EntropyCalibration2\nx{self._made}: 3caa54fc\n".encode()
        response = self.http.post("/v1/calibrations?name=cache", content=content)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def _checked(self, table: type[ModelRow] | type[DatasetRow], response: Response, ready: bool) -> str:
        resource_id = response.json()["id"]
        if ready:
            self.set_row(table, resource_id, state=ResourceState.READY)
            with self.database.write() as session:
                session.execute(update(UnitRow).where(UnitRow.subject_id == resource_id).values(state=UnitState.DONE))
        return str(resource_id)

    def sweep(self, **settings: object) -> Response:
        body = {**settings}
        body["model"] = body.get("model") or self.model()
        body["dataset"] = body.get("dataset") or self.dataset()
        return self.http.post("/v1/sweeps", json=body)

    def worker(self, *, queues: tuple[str, ...] = ("data",), **available: bool) -> None:
        capabilities = {
            name.value: {"backend": name, "available": available.get(name.value, False), "reason": f"no {name} here"}
            for name in BackendName
        }
        with self.database.write() as session:
            workers.beat(session, Heartbeat("host:1", "host", 1, list(queues), capabilities, {"quantsieve": "0"}))

    def set_row(self, table: type, row_id: str, **values: object) -> None:
        with self.database.write() as session:
            row = session.get_one(table, row_id)
            for name, value in values.items():
                setattr(row, name, value)

    def assert_nothing_left(self) -> None:
        """No file, no row, no hint."""
        assert stored_files(self.blobs.folder) == set()
        with self.database.read() as session:
            tables = (ModelRow, DatasetRow, CalibrationRow, SweepRow, ConversionRow, UnitRow)
            assert [session.query(table).count() for table in tables] == [0] * len(tables)
        assert self.hints.published == []


def bearer_of(settings: Settings) -> dict[str, str]:
    """The header with the key that lies in the data folder."""
    return {"Authorization": f"Bearer {settings.key_file.read_text().strip()}"}


def client_of(app: FastAPI, settings: Settings) -> TestClient:
    """A client that holds this machine's key."""
    return TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False, headers=bearer_of(settings))


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        max_model_bytes=50_000,
        max_dataset_bytes=60_000,
        max_calibration_bytes=40_000,
    )


@pytest.fixture
def service(settings: Settings, database: Database) -> Iterator[Service]:
    blobs, hints = FolderBlobStore(settings.data_dir / "blobs"), CountingHints(settings)
    app = create_app(settings, database, blobs, hints)
    with client_of(app, settings) as http:
        yield Service(http, settings, database, blobs, hints)


def assert_problem(response: Response, status: int, code: str, words: str = "") -> dict:
    """The response is this problem, with these words in its detail; the document."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == f"urn:quantsieve:problem:{code}"
    assert document["status"] == status
    assert words in document["detail"]
    assert "Traceback" not in response.text
    return document
