"""How sandboxes are kept: what must hold, how much memory and time they may take, what they may see."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from service.settings import Settings
from workers.backends.tensorrt.timing_cache import cache_folder

Demand = Literal["auto", "required"]

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
SHARE = 0.8
"""Of the memory that this machine, or this container, has: a sandbox that takes more is ended by its own limit."""


@dataclass(frozen=True)
class Policy:
    """``memory`` and ``file`` in bytes; ``open_seconds``: until a file is open; ``silent_seconds``: between answers.

    ``visible``: paths that stay readable, plugin libraries above all. ``gpu``: whether devices of NVIDIA do.
    ``engines``: the folder of engines and timing caches of TensorRT; None where that is not installed.
    """

    demand: Demand
    memory: int
    file: int
    open_seconds: float
    silent_seconds: float
    threads: int = 1024
    visible: tuple[str, ...] = ()
    gpu: bool = False
    engines: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As an installation has set it."""
        libraries = (*settings.custom_op_libraries, *settings.tensorrt_plugin_libraries)
        return cls(
            demand=settings.sandbox,
            memory=settings.sandbox_memory_bytes or int(SHARE * machine_memory()),
            file=settings.sandbox_file_bytes,
            open_seconds=settings.sandbox_open_seconds,
            silent_seconds=settings.sandbox_silent_seconds,
            visible=tuple(str(each) for each in libraries),
            engines=str(cache_folder(os.environ).absolute()) if find_spec("tensorrt") is not None else None,
            gpu=settings.device != "cpu" and os.path.exists("/dev/nvidiactl"),
        )


def machine_memory() -> int:
    """Bytes of memory that this process may hope for."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return total
