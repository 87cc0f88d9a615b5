"""A secret in a file that its owner alone may read; made at its first use."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from service.domain.errors import InvalidInput


def private_text(path: Path, make: Callable[[], str]) -> str:
    """The file's text; where there is no file, what ``make`` gives is written first. Raises InvalidInput.

    Two processes that make it at once agree on one text. A file that others may read is refused: who knows who did.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileNotFoundError):
        return _read(path)
    # written beside and linked to its name: nobody ever reads half of it, and the first one stays
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(make() + "\n")
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return _read(path)


def _read(path: Path) -> str:
    with path.open() as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            message = f"{path} holds a secret and others may read it; delete it for a new one, or chmod 600 {path}"
            raise InvalidInput(message, field="data_dir")
        return file.read().strip()
