"""A disk that can be filled: a small file system in memory where we may mount one (root on Linux).

Elsewhere a folder, and a limit on the size of files that the processes may write (RLIMIT_FSIZE).
"""

import contextlib
import resource
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SIZE = "96m"


@dataclass(frozen=True)
class Disk:
    """``mounted``: a file system of its own."""

    folder: Path
    mounted: bool

    @classmethod
    def at(cls, folder: Path) -> "Disk":
        """Mounted at this folder where that is allowed."""
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "chaos", str(folder)]
        try:
            mounted = subprocess.run(command, capture_output=True).returncode == 0
        except OSError:
            mounted = False
        return cls(folder, mounted)

    def close(self) -> None:
        """Unmount it."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    @property
    def how(self) -> str:
        """How it is filled, in words."""
        return f"tmpfs of {SIZE}, filled" if self.mounted else "RLIMIT_FSIZE = 0"

    def fill(self, processes: Iterable[int]) -> None:
        """No byte more can be written (by these processes)."""
        if not self.mounted:
            self._limit(processes, 0)
            return
        with (self.folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (2**20, 2**12):
                with contextlib.suppress(OSError):
                    while filler.write(bytes(size)) == size:
                        pass

    def free(self, processes: Iterable[int]) -> None:
        """There is room again."""
        if not self.mounted:
            self._limit(processes, resource.RLIM_INFINITY)
            return
        (self.folder / "filler").unlink(missing_ok=True)

    @staticmethod
    def _limit(processes: Iterable[int], size: int) -> None:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size if size == 0 else hard, hard))


def family(pids: Iterable[int]) -> list[int]:
    """These processes and all below them (Linux)."""
    found, waiting = [], list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += [int(each) for each in task.read_text().split()]
    return found
