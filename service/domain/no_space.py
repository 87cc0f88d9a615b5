"""A disk that is full: no fault of the work that met it, which waits until there is room again."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from service.domain.errors import Unavailable

# the last is what a limit on the size of files (RLIMIT_FSIZE) answers with
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class NoSpace(Unavailable):
    """There is no room for what was to be written."""

    code = "storage-full"


@contextmanager
def no_space_told() -> Iterator[None]:
    """Turn the system's errors of a full disk into NoSpace."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NoSpace("there is no space left for files") from error
        raise
