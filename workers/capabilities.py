"""What this machine can run, found out in a child process so that the caller loads no runtime."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from service.broker import DATA_QUEUE
from service.domain.scheduling import DeviceKind, queue_of
from service.domain.settings import BackendName
from workers.backends.protocol import Capability, LibraryState, PluginLibraries
from workers.sandbox.measures import ADAPTER, ESSENTIAL, Measure

PUBLISHED = "QUANTSIEVE_CAPABILITIES"
"""The variable in which a worker's processes find what its first process has found out."""

PROBE_TIMEOUT_SECONDS = 300
TRIAL_TIMEOUT_SECONDS = 60


def probe(libraries: PluginLibraries) -> list[Capability]:
    """The capability of every backend with its plugin libraries; loads the runtimes into this process.

    Libraries are loaded into processes of their own: one that crashes takes nothing else with it.
    """
    from workers.backends.registry import BACKENDS

    configured = {BackendName.ONNXRUNTIME: libraries.onnxruntime, BackendName.TENSORRT: libraries.tensorrt}
    found = []
    for backend in BACKENDS.values():
        capability = backend().capability()
        tried = tuple(_tried(capability, each) for each in configured.get(capability.backend, ()))
        found.append(replace(capability, libraries=tried))
    return found


def _tried(capability: Capability, path: Path) -> LibraryState:
    if not capability.available:
        return LibraryState(str(path), None, f"not tried, since {capability.backend} cannot run here")
    command = [sys.executable, "-P", "-m", "workers.backends.library_trial", capability.backend, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return LibraryState(str(path), None, f"it did not load within {TRIAL_TIMEOUT_SECONDS} s")
    if done.returncode != 0:
        return LibraryState(str(path), None, f"loading it ended the process with {done.returncode}")
    # the last line: what a library itself prints comes before it
    return LibraryState(**json.loads(done.stdout.strip().rpartition("\n")[2]))


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


def capability_of(name: BackendName) -> Capability:
    """The capability of that backend as it was published; where none was, it is found out, which loads the runtime.

    Raises SweepFailure for a backend that this program does not know.
    """
    from workers.backends.registry import backend

    found = published()
    return from_document(found[name]) if name in found else backend(name).capability()


def published() -> dict[str, Any]:
    """Backend → its capability as JSON, as this worker's first process has found it out."""
    return {each["backend"]: each for each in json.loads(os.environ.get(PUBLISHED, "[]"))}


@cache
def device_for(name: BackendName, wanted: str) -> str:
    """The device that a worker told ``wanted`` runs this backend on."""
    return capability_of(name).device(wanted)


def sandbox_in_child() -> tuple[Measure, ...]:
    """What confines the processes that open files on this machine, found out by one."""
    command = [sys.executable, "-P", "-m", "workers.main", "--sandbox"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return _unconfined(f"a sandbox did not start within {PROBE_TIMEOUT_SECONDS} s")
    if done.returncode != 0:
        return _unconfined(f"a sandbox does not start: {done.stderr.strip()[-300:]}")
    return ADAPTER.validate_json(done.stdout)


def _unconfined(reason: str) -> tuple[Measure, ...]:
    return tuple(Measure(name, False, reason) for name in ESSENTIAL)


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
        libraries=tuple(LibraryState(**each) for each in document["libraries"]),
        providers=tuple(document["providers"]),
    )


def queues_of(capabilities: list[Capability], wanted: str) -> list[str]:
    """The queues that a worker on a machine with these capabilities can serve; ``wanted``: its device, or ``auto``."""
    queues = [DATA_QUEUE]
    for each in capabilities:
        if not each.available:
            continue
        kind = DeviceKind.of(each.device(wanted))
        queues.append(queue_of(each.backend))
        if kind in map(DeviceKind.of, each.devices):
            queues.append(queue_of(each.backend, kind))
    return queues
