"""An installation for each test; the migrations run once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.installation import Installation


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database as the migrations make it."""
    folder = tmp_path_factory.mktemp("migrated")
    database = Installation.at(folder).context.database
    database.migrate()
    database.close()
    return folder


@pytest.fixture
def installation(migrated: Path, tmp_path: Path) -> Iterator[Installation]:
    """Short heartbeats, long leases, three attempts."""
    shutil.copytree(migrated, tmp_path / "data")
    made = Installation.at(tmp_path / "data", lease_seconds=60, heartbeat_seconds=0.02, max_attempts=3)
    yield made
    made.context.database.close()
