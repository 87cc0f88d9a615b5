"""The embedded server as a stranger meets it, with a look at what it keeps: rows, files, temporary files."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from service.embedded.server import EmbeddedServer
from service.settings import Settings
from service.store.database import Database
from service.store.folder_blobs import FolderBlobStore
from service.store.leftovers import remove_leftovers
from service.store.tables import (
    ArtifactRow,
    CalibrationRow,
    ConversionFileRow,
    ConversionRow,
    DatasetRow,
    LayerRow,
    ModelRow,
    ScoreRow,
    SelectionRow,
    SweepRow,
    UnitRow,
)
from tests.stored_files import stored_files

TABLES = (
    ModelRow,
    DatasetRow,
    CalibrationRow,
    SweepRow,
    ConversionRow,
    UnitRow,
    SelectionRow,
    LayerRow,
    ScoreRow,
    ArtifactRow,
    ConversionFileRow,
)
ENDED = {"succeeded", "failed", "cancelled"}
Document = dict[str, Any]


@dataclass
class LiveService:
    """``http`` talks to the server; the rest looks behind it."""

    http: httpx.Client
    database: Database
    blobs: FolderBlobStore
    temporary: Path
    key: str
    patience: float = 60

    def upload(self, noun: str, content: bytes, **query: str) -> httpx.Response:
        """Send the bytes as a model or a dataset."""
        return self.http.post(f"/v1/{noun}", params={"name": "upload", **query}, content=content)

    def checked(self, noun: str, content: bytes, **query: str) -> Document:
        """The resource once a worker has looked at it, ready or rejected."""
        response = self.upload(noun, content, **query)
        assert response.status_code in (200, 201), response.text
        return self._until(f"/v1/{noun}/{response.json()['id']}", lambda document: document["state"] != "checking")

    def ready(self, noun: str, content: bytes, **query: str) -> str:
        """The id of a resource that has to be all right."""
        document = self.checked(noun, content, **query)
        assert document["state"] == "ready", document["problem"]
        return str(document["id"])

    def ended(self, sweep_id: str) -> Document:
        """The sweep once it has ended."""
        return self._until(f"/v1/sweeps/{sweep_id}", lambda document: document["state"] in ENDED)

    def sweep(self, **settings: Any) -> Document:
        """Ask for a sweep and wait for its end."""
        response = self.http.post("/v1/sweeps", json=settings)
        assert response.status_code == 202, response.text
        return self.ended(response.json()["id"])

    def delete(self, url: str) -> None:
        """Delete a resource, and at once the files that nothing names any more."""
        response = self.http.delete(url)
        assert response.status_code == 204, response.text
        remove_leftovers(self.database, self.blobs, older_than=-1)

    def kept(self) -> tuple[dict[str, int], set[Path]]:
        """All that the service keeps: rows by table, and files, the temporary ones of server and worker included."""
        with self.database.read() as session:
            rows = {
                table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES
            }
        files = stored_files(self.blobs.folder)
        return rows, files | set(self.temporary.glob("quantsieve-*"))

    def _until(self, url: str, done: Any) -> Document:
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            document: Document = self.http.get(url).raise_for_status().json()
            if done(document):
                return document
            time.sleep(0.05)
        raise AssertionError(f"{url} is {document['state']} after {self.patience} s")


def bearer(server: EmbeddedServer) -> dict[str, str]:
    """The header with the key of this machine."""
    return {"Authorization": f"Bearer {server.key}"}


@contextmanager
def live_service(folder: Path, *, with_worker: bool = True, **asked: Any) -> Iterator[LiveService]:
    """A server over this folder as long as the block lasts; a second one over the same folder finds all there."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", str(temporary))
        settings = Settings(data_dir=folder / "data", host="127.0.0.1", port=0, reconcile_seconds=0.5, **asked)
        with (
            EmbeddedServer(settings, with_worker=with_worker) as server,
            httpx.Client(base_url=server.url, timeout=30, headers=bearer(server)) as http,
        ):
            database = Database(server.settings.resolved_database_url)
            yield LiveService(
                http, database, FolderBlobStore(server.settings.data_dir / "blobs"), temporary, server.key or ""
            )
            database.close()
