"""The template: a process that has loaded all code and no stranger's byte, and makes every sandbox by forking.

``python -m workers.sandboxed`` runs it. It is told what to do over a socket of packets, and ends when that ends, and
all its sandboxes with it.
"""

import fcntl
import gc
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter

from workers.models.private_folder import remove_stale
from workers.sandbox import confinement, measures, syscalls
from workers.sandbox.policy import Policy
from workers.sandbox.wire import Channel

PACKET = 2**16
MOST_FILES = 8
FOLDER_PREFIX = "quantsieve-sandbox-"
STARTING_SECONDS = 10.0
"""A folder that is younger may be one whose template has not locked it yet."""
POLICY = TypeAdapter(Policy)

Load = Callable[[str], None]
"""Loads the code that opens a kind of thing, once."""

Serve = Callable[[Channel, str, list[Path]], None]
"""Serves the messages of one channel: what kind of thing is opened, and the files."""


def run_template(control: socket.socket, policy: Policy, load: Load, serve: Serve) -> None:
    """Make and end sandboxes until the worker is gone."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the worker says when to end, by closing the socket
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    folder.chmod(0o711)
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)  # held as long as this process lives
    remove_stale(folder.parent, prefix=FOLDER_PREFIX, older_than=STARTING_SECONDS)
    try:
        _Template(control, policy, load, serve, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Template:
    def __init__(self, control: socket.socket, policy: Policy, load: Load, serve: Serve, folder: Path) -> None:
        self._control, self._policy, self._load, self._serve, self._folder = control, policy, load, serve, folder
        self._made = 0
        self._folders: dict[int, Path] = {}

    def run(self) -> None:
        while True:
            packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET, MOST_FILES + 1)
            if not packet:
                break
            asked = json.loads(packet)
            answer = self._fork(asked, descriptors) if "open" in asked else self._end(asked["end"])
            with suppress(OSError):
                self._control.sendall(json.dumps(answer).encode())
        for holder in self._folders:
            with suppress(OSError):
                os.kill(holder, signal.SIGKILL)

    def _fork(self, asked: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        self._load(asked["open"])
        gc.collect()
        gc.freeze()  # pages of what is loaded stay shared
        self._made += 1
        folder = self._folder / str(self._made)
        try:
            for each in (folder, folder / "scratch", folder / "root"):
                each.mkdir(mode=0o711)
            (folder / "scratch").chmod(0o700)
            if os.geteuid() == 0:
                with suppress(OSError):  # in a user namespace that has no such user
                    os.chown(folder / "scratch", confinement.NOBODY, confinement.NOBODY)
            holder = os.fork()
        except OSError as error:
            for descriptor in descriptors:
                os.close(descriptor)
            shutil.rmtree(folder, ignore_errors=True)
            return {"failed": f"no process can be started: {error.strerror}"}
        if holder == 0:
            self._control.close()
            _hold(lambda refused: self._child(asked, descriptors, folder, refused), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._folders[holder] = folder
        return {"holder": holder}

    def _child(self, asked: dict[str, Any], descriptors: list[int], folder: Path, refused: str | None) -> None:
        channel = Channel(socket.socket(fileno=descriptors[0]))
        files, found = confinement.confine(
            self._policy,
            descriptors[1:],
            asked["paths"],
            scratch=str(folder / "scratch"),
            root=str(folder / "root"),
            refused=refused,
            engines=asked["engines"],
        )
        channel.send("ready", measures.to_document(found))
        self._serve(channel, asked["open"], [Path(each) for each in files])

    def _end(self, holder: int) -> dict[str, Any]:
        """How the sandbox has ended; it is killed where it has not."""
        folder = self._folders.pop(holder, None)
        if folder is None:
            return {"ended": "it is not there"}
        status = _status_of(holder)
        shutil.rmtree(folder, ignore_errors=True)
        return {"ended": status}


def _status_of(holder: int) -> str:
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        pid, status = os.waitpid(holder, os.WNOHANG)
        if pid:
            return _told(status)
        time.sleep(0.002)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    return "it was ended by the worker"


def _told(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    number = code - 128 if code > 128 else -code
    if number > 0:
        names = {each.value: each.name for each in signal.Signals}
        return f"signal {names.get(number, number)}"
    return f"status {code}"


def _hold(child: Callable[[str | None], None], descriptors: list[int]) -> NoReturn:
    """Be the parent of the first process in new namespaces, and end as it ends. Does not return."""
    status = 1
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        quiet = os.open(os.devnull, os.O_RDWR)
        for each in (0, 1, 2):  # a stranger writes into nobody's log
            os.dup2(quiet, each)
        refused = confinement.enter_namespaces()
        pid = os.fork()
        if pid == 0:
            try:
                child(refused)
                os._exit(0)
            finally:
                os._exit(1)
        for each in descriptors:
            os.close(each)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        status = 128 - code if code < 0 else code
    finally:
        os._exit(status)
