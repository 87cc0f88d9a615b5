"""A disk that is full stops the work, and ends nothing."""

import errno
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
from sqlalchemy.exc import OperationalError

from service.domain.no_space import NoSpace
from service.domain.states import SweepState, UnitKind, UnitState
from service.store import units
from service.store.blobs import BlobWriter
from service.store.database import Database
from tests.workers.installation import Installation, onnx_bytes
from workers.exports.onnx_file import write_onnx


@contextmanager
def no_file_may_grow() -> Iterator[None]:
    """What the system answers then is EFBIG, in this process alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", [UnitKind.MEASURE, UnitKind.REPORT])
def test_the_unit_waits_and_no_attempt_is_counted(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, kind: UnitKind
) -> None:
    def full(self: BlobWriter, chunk: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sweep_id = installation.sweep()
    for _ in range(4):  # more often than a unit may be tried
        lease = installation.run_until(kind)
        assert lease is not None
        with monkeypatch.context() as patch:
            patch.setattr(BlobWriter, "write", full)
            installation.run(lease)
        unit = installation.unit(lease)
        assert (unit.state, unit.attempts) == (UnitState.QUEUED, 0)
        assert unit.error == "there is no space left for files"
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED


def test_the_unit_waits_for_a_database_without_space(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OperationalError("update", {}, sqlite_full())

    sweep_id = installation.sweep()
    lease = installation.run_until(UnitKind.CALIBRATE)
    assert lease is not None
    with monkeypatch.context() as patch:
        patch.setattr(units, "finish", full)
        installation.run(lease)
    assert (installation.unit(lease).state, installation.unit(lease).attempts) == (UnitState.QUEUED, 0)
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED


def sqlite_full() -> sqlite3.OperationalError:
    """What SQLite raises: a database that may have no more pages is full."""
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (x)")
    connection.execute("pragma max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as raised:
        connection.execute("insert into t values (zeroblob(100000))")
    return raised.value


def test_a_graph_that_finds_no_room_is_not_taken_for_one_that_cannot_be_made(tmp_path: Path) -> None:
    with no_file_may_grow(), pytest.raises(NoSpace):
        write_onnx(tmp_path / "m.onnx", onnx.load_from_string(onnx_bytes()), {})
    assert list(tmp_path.iterdir()) == []


def test_a_full_postgresql_is_known_by_its_state(database: Database) -> None:
    """PostgreSQL's is raised here by hand: 53100 is what it answers when it cannot extend a file."""
    from service.store.database import out_of_space

    if database.is_sqlite:
        assert out_of_space(OperationalError("insert", {}, sqlite_full()))
        return
    statement = "do $$ begin raise exception 'could not extend file' using errcode = '53100'; end $$"
    with pytest.raises(OperationalError) as raised, database.write() as session:
        session.connection().exec_driver_sql(statement)
    assert out_of_space(raised.value)
