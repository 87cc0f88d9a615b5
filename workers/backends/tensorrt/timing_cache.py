"""Where what TensorRT learned about kernels is kept: one file for each GPU model and TensorRT version."""

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FOLDER_VARIABLE = "QUANTSIEVE_TENSORRT_CACHE"


def cache_folder(environment: Mapping[str, str]) -> Path:
    """The folder that the operator chose, else one in the user's cache."""
    chosen = environment.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "quantsieve" / "tensorrt"


def file_name(gpu: str, version: str) -> str:
    """``NVIDIA A100-SXM4-40GB`` and ``10.16.1.11`` → ``nvidia-a100-sxm4-40gb_10.16.1.11.timing``."""
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") or "gpu"
    return f"{slug}_{re.sub(r'[^0-9A-Za-z.]+', '-', version)}.timing"


class TimingCacheFile:
    """One such file, shared by every worker of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes:
        """What it holds; nothing where there is none yet."""
        return self.path.read_bytes() if self.path.exists() else b""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While it is read, merged and written: no other worker's entries are lost."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def write(self, content: bytes) -> None:
        """Replace it as a whole: a reader never sees half of one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(content)
        temporary.replace(self.path)
