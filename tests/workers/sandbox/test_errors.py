"""What an error is once it has left a sandbox."""

import errno
import shutil
from collections import namedtuple

import pytest

from service.domain.no_space import NoSpace
from workers.sandbox.errors import ROOM, FailedInside, from_document, to_document

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.mark.parametrize(
    ("free", "expected"), [(ROOM - 1, NoSpace), (ROOM, FailedInside)], ids=["a full disk", "room enough"]
)
@pytest.mark.parametrize("inside", [OSError(errno.ENOSPC, "full"), OSError(errno.EFBIG, "large"), NoSpace("full")])
def test_a_sandbox_that_finds_no_room_is_believed_only_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, inside: Exception, free: int, expected: type[Exception]
) -> None:
    """Else a file could make its unit wait for ever: what waits for room is no failed attempt."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
    assert type(from_document(to_document(inside))) is expected
