"""``quantsieve gc``, while files come in."""

import os
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from service.cli.root import app
from service.domain.states import SweepState
from service.settings import Settings
from service.store.database import Database
from service.store.folder_blobs import FolderBlobStore
from service.store.leftovers import remove_leftovers
from service.store.resources import NewFile, add_model
from service.store.tables import SweepRow
from tests.service.store.conftest import Rows

HOURS_AGO = 7200


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUANTSIEVE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("QUANTSIEVE_RETENTION_DAYS", "7")
    settings = Settings()
    database = Database(settings.resolved_database_url)
    database.migrate()
    yield database, FolderBlobStore(tmp_path / "blobs")
    database.close()


def age(blobs: FolderBlobStore, sha256: str, seconds: float = HOURS_AGO) -> str:
    then = time.time() - seconds
    os.utime(blobs.path(sha256), (then, then))
    return sha256


def said(*arguments: str) -> list[str]:
    done = CliRunner().invoke(app, ["gc", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_it_shows_and_then_deletes_what_is_old_and_nobodys(here: tuple[Database, FolderBlobStore]):
    database, blobs = here
    named, nobodys = (age(blobs, blobs.put(each).sha256) for each in (b"named", b"nobody's"))
    recent = blobs.put(b"recent").sha256
    with database.write() as session:
        add_model(session, NewFile("m", blobs.put(b"named"), "onnx"))
    age(blobs, named)
    rows = Rows(database)
    rows.dataset()
    sweep = rows.sweep()
    with database.write() as session:
        row = session.get_one(SweepRow, sweep)
        row.state, row.finished_at = SweepState.SUCCEEDED, row.created_at - 8 * 86_400
    assert said("--dry-run") == [f"sweep {sweep}", f"file {nobodys}"]
    assert blobs.read(nobodys)
    assert said() == ["deleted 1 sweeps and 1 files"]
    assert set(blobs.written_before(float("inf"))) == {named, recent}
    assert said("--dry-run") == []


def test_a_file_that_is_stored_again_while_garbage_is_collected_is_never_lost(here: tuple[Database, FolderBlobStore]):
    """The same old bytes come in again and again; whoever stored them finds them, until they are old once more."""
    database, blobs = here
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            remove_leftovers(database, blobs, older_than=3600)

    collectors = [threading.Thread(target=collect) for _ in range(2)]
    for each in collectors:
        each.start()
    try:
        for _ in range(300):
            sha256 = blobs.put(b"uploaded before, deleted, and now once more").sha256
            assert blobs.read(sha256)
            age(blobs, sha256)
    finally:
        stop.set()
        for each in collectors:
            each.join()


def test_a_release_that_does_not_know_all_tables_deletes_nothing(here: tuple[Database, FolderBlobStore]):
    database, blobs = here
    file = age(blobs, blobs.put(b"named by a table of a newer release").sha256)
    with database.write() as session:
        session.execute(text("update alembic_version set version_num = '9999'"))
    done = CliRunner().invoke(app, ["gc"])
    assert done.exit_code == 2
    assert "version skew detected and refused" in " ".join(done.stderr.split())
    assert blobs.read(file)
