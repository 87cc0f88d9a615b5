"""What this machine can run, found out in a child process so that the caller loads no runtime."""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from service.broker import DATA_QUEUE
from service.domain.settings import BackendName
from workers.backends.protocol import Capability

PROBE_TIMEOUT_SECONDS = 300


def probe() -> list[Capability]:
    """The capability of every backend; loads the runtimes into this process."""
    from workers.backends.registry import BACKENDS

    return [backend().capability() for backend in BACKENDS.values()]


def probe_in_child() -> list[Capability]:
    """The same from a process of its own; a probe that dies makes every backend unavailable, with the reason."""
    command = [sys.executable, "-m", "workers.main", "--capabilities"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return _unavailable(f"the probe of this machine did not end within {PROBE_TIMEOUT_SECONDS} s")
    if done.returncode != 0:
        return _unavailable(f"the probe of this machine ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return [from_document(each) for each in json.loads(done.stdout)]


def _unavailable(reason: str) -> list[Capability]:
    return [Capability(name, False, (), {}, reason) for name in BackendName]


def to_document(capability: Capability) -> dict[str, Any]:
    """As JSON."""
    return asdict(capability) | {"versions": dict(capability.versions)}


def from_document(document: dict[str, Any]) -> Capability:
    """From JSON."""
    return Capability(
        backend=BackendName(document["backend"]),
        available=document["available"],
        devices=tuple(document["devices"]),
        versions=document["versions"],
        reason=document["reason"],
        providers=tuple(document["providers"]),
    )


def queues_of(capabilities: list[Capability]) -> list[str]:
    """The queues that a machine with these capabilities can serve."""
    return [DATA_QUEUE, *(each.backend.value for each in capabilities if each.available)]
