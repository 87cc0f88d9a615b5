import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from workers.models.private_folder import FOLDER_PREFIX, private_folder, remove_stale


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_worker_left_is_removed_and_what_is_in_use_is_not(temporary: Path) -> None:
    left, used, new = (temporary / f"{FOLDER_PREFIX}{name}" for name in ("left", "used", "new"))
    for folder in (left, used, new):
        folder.mkdir()
        (folder / "0.data").write_bytes(b"x")
    for folder in (left, used):
        os.utime(folder, (0, 0))
    descriptor = os.open(used, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with private_folder() as mine:
            assert sorted(temporary.iterdir()) == sorted([mine, new, used])
    finally:
        os.close(descriptor)
    assert sorted(temporary.iterdir()) == [new, used]


def test_a_folder_is_in_use_as_long_as_its_block_lasts(temporary: Path) -> None:
    with private_folder() as mine:
        remove_stale(temporary, older_than=-1)
        assert list(temporary.iterdir()) == [mine]
