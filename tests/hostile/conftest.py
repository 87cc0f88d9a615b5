"""One running service that takes every kind of file, for all attacks."""

from collections.abc import Iterator

import pytest

from tests.live_service import LiveService, live_service
from tests.small_network import network


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    with live_service(tmp_path_factory.mktemp("hostile"), allow_pt2=True, max_attempts=2) as running:
        running.patience = 240  # where many tests run at once, a large graph takes a while
        running.ready("models", network().SerializeToString())  # what makes sandboxes has its folder from here on
        yield running
