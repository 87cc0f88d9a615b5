"""Loads one plugin library in a process of its own: ``python -m workers.backends.library_trial <backend> <path>``.

Prints the ``LibraryState`` as JSON, as the last line.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from service.domain.settings import BackendName
from workers.backends.protocol import LibraryState
from workers.models.onnx_libraries import content_of, register


def main(arguments: Sequence[str]) -> None:
    """Try the library; a broken one is an answer, not an error."""
    backend, path = BackendName(arguments[0]), Path(arguments[1])
    print(json.dumps(asdict(tried(backend, path))))


def tried(backend: BackendName, path: Path) -> LibraryState:
    """The library's state, once this process has loaded it or could not."""
    try:
        sha256 = content_of(path)
    except OSError as error:
        return LibraryState(str(path), None, f"it cannot be read: {error.strerror}")
    reason = _with_tensorrt(path) if backend is BackendName.TENSORRT else _with_onnxruntime(path)
    return LibraryState(str(path), sha256 if reason is None else None, reason)


def _with_onnxruntime(path: Path) -> str | None:
    import onnxruntime

    return next((each.reason for each in register(onnxruntime.SessionOptions(), [path])), None)


def _with_tensorrt(path: Path) -> str | None:
    from workers.backends.tensorrt.building import load_plugins

    return load_plugins(path)


if __name__ == "__main__":
    main(sys.argv[1:])
