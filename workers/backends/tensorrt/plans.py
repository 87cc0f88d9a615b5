"""Engines that were built before, on disk: every shard of a sweep, and every later sweep, finds them."""

import hashlib
import os
from pathlib import Path

from workers.backends.tensorrt.seam import BuildRequest

MOST_BYTES = 8 * 2**30


def plan_key(identity: str, request: BuildRequest) -> str:
    """By all that an engine depends on: GPU and versions, the graph with its weights, shapes, int8 beside the graph."""
    digest = hashlib.sha256()
    implicit = request.implicit
    beside = None if implicit is None else (sorted(implicit.nodes), sorted(implicit.ranges.items()))
    for part in (identity, repr(request.inputs), repr(beside)):
        digest.update(f"{len(part)}:{part}".encode())
    digest.update(request.model)
    return digest.hexdigest()


class PlanStore:
    """Plans by key in one folder; the longest unused go when they take more than ``most_bytes``."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._most = folder, most_bytes

    def get(self, key: str) -> bytes | None:
        """The plan, None where there is none."""
        path = self._path(key)
        try:
            plan = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:  # another worker may prune between any two steps
            return None
        return plan

    def put(self, key: str, plan: bytes) -> None:
        """Keep it: a reader never sees half of one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f"{key}.{os.getpid()}"
        temporary.write_bytes(plan)
        temporary.replace(self._path(key))
        self._prune()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.plan"

    def _prune(self) -> None:
        total = 0
        for _, size, path in sorted(_stats(self._folder), reverse=True):
            total += size
            if total > self._most:
                path.unlink(missing_ok=True)


def _stats(folder: Path) -> list[tuple[float, int, Path]]:
    found = []
    for path in folder.glob("*.plan"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found.append((stat.st_mtime, stat.st_size, path))
    return found
