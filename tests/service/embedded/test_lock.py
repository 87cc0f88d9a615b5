"""The lock on a data folder."""

from pathlib import Path

import pytest

from service.domain.errors import Conflict
from service.embedded.lock import DataDirLock, running_server


def test_a_second_server_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    with DataDirLock(tmp_path) as lock:
        lock.announce("http://127.0.0.1:1234")
        with pytest.raises(
            Conflict, match=r"in use by the server with process id \d+ at http://127.0.0.1:1234"
        ) as caught:
            DataDirLock(tmp_path).__enter__()
        assert caught.value.code == "data-dir-in-use"


def test_the_lock_is_free_again_after_the_server(tmp_path: Path) -> None:
    with DataDirLock(tmp_path):
        pass
    with DataDirLock(tmp_path):
        pass


def test_what_a_dead_server_left_locks_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "server.lock").write_text('{"pid": 1, "url": "http://127.0.0.1:1"}')
    assert running_server(tmp_path) is None
    with DataDirLock(tmp_path):
        pass


def test_the_running_server_is_found_by_its_folder(tmp_path: Path) -> None:
    assert running_server(tmp_path) is None
    with DataDirLock(tmp_path) as lock:
        lock.announce("http://127.0.0.1:1234")
        found = running_server(tmp_path)
        assert found is not None
        assert found.url == "http://127.0.0.1:1234"
    assert running_server(tmp_path) is None
