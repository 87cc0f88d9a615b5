from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from service.domain.errors import InvalidInput
from service.store.private_file import private_text


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path):
    path = tmp_path / "folder" / "key"
    assert private_text(path, lambda: "first") == private_text(path, lambda: "second") == "first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["key"]


def test_many_at_once_agree(tmp_path: Path):
    numbers = count()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: private_text(tmp_path / "key", lambda: str(next(numbers))), range(32)))
    assert len(found) == 1


def test_one_that_others_may_read_is_refused(tmp_path: Path):
    path = tmp_path / "key"
    path.write_text("secret")
    path.chmod(0o640)
    with pytest.raises(InvalidInput, match="others may read it") as refused:
        private_text(path, lambda: "other")
    assert "secret" not in str(refused.value).replace("holds a secret", "")
