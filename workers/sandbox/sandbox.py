"""The worker's side: one template for the life of this process, and what it opens in processes of their own."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from weakref import finalize

from workers.backends.onnx_providers import TF32_VARIABLE
from workers.sandbox.confined import Confined
from workers.sandbox.errors import SandboxDied
from workers.sandbox.policy import Policy
from workers.sandbox.template import PACKET, POLICY
from workers.sandbox.wire import NO_ARRAYS, Array, Channel, Message

START_SECONDS = 600.0
STOP_SECONDS = 30.0
ENTRY = "workers.sandboxed"
PROBE = "nothing"
"""The kind of sandbox that opens no file."""
BUILD_ENGINES = frozenset({"tensorrt", "latency"})
"""The kinds that see and write the folder of TensorRT's engines, so that none is built twice."""
KEPT_VARIABLES = (
    *("PATH", "PYTHONPATH", "PYTHONHASHSEED", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
    *("CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    *(TF32_VARIABLE, "CUBLAS_WORKSPACE_CONFIG"),  # what they change is the numbers
)
"""Of the environment; whatever else is there may be a credential."""

Result = TypeVar("Result")


class Sandbox:
    """Opens files in low-privilege processes. Starting costs seconds, once; each sandbox some milliseconds."""

    def __init__(self, policy: Policy, *, entry: str = ENTRY) -> None:
        """``entry``: the module that runs the template."""
        self.policy = policy
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        asked = POLICY.dump_json(policy).decode()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", entry, str(theirs.fileno()), asked],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        self._abandoned: deque[int] = deque()
        finalize(self, _end_template, self._control, self._process, os.getpid())

    def run(
        self,
        kind: str,
        files: Sequence[Path],
        document: Any = None,
        arrays: Mapping[str, Array] = NO_ARRAYS,
        *,
        read: Callable[[Message], Result],
    ) -> Result:
        """What ``read`` makes of the only answer of that kind of sandbox; raises as ``open`` does."""
        opened = self.open(kind, files, document, arrays, seconds=self.policy.silent_seconds)
        try:
            return opened.checked(lambda: read(opened.first))
        finally:
            opened.end()

    def open(
        self,
        kind: str,
        files: Sequence[Path],
        document: Any = None,
        arrays: Mapping[str, Array] = NO_ARRAYS,
        *,
        seconds: float | None = None,
    ) -> Confined:
        """The files, opened within so many seconds.

        Raises what opening raised (RejectedFile, OutOfMemory, …), SandboxDied, and Unavailable where the host does not
        permit what is required.
        """
        ours, theirs = socket.socketpair()
        with ExitStack() as stack:
            stack.enter_context(theirs)
            opened = [stack.enter_context(each.open("rb")).fileno() for each in files]
            asked = {"open": kind, "paths": [os.path.realpath(each) for each in files], "engines": self._engines(kind)}
            try:
                answer = self._ask(asked, [theirs.fileno(), *opened])
            except SandboxDied:
                ours.close()
                raise
        if "holder" not in answer:
            ours.close()
            raise SandboxDied(str(answer.get("failed")))
        made = Confined(self, Channel(ours), int(answer["holder"]))
        made.begin(document, arrays, seconds or self.policy.open_seconds)
        return made

    def end(self, holder: int) -> str:
        """How that sandbox has ended; it is killed where it has not."""
        return str(self._ask({"end": holder}, []).get("ended"))

    def abandon(self, holder: int) -> None:
        """Nobody refers to that sandbox any more. Called while garbage is collected: nothing may wait here."""
        self._abandoned.append(holder)

    def _engines(self, kind: str) -> str | None:
        if self.policy.engines is None or kind not in BUILD_ENGINES:
            return None
        os.makedirs(self.policy.engines, exist_ok=True)
        return os.path.realpath(self.policy.engines)

    def _ask(self, document: Mapping[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        with self._lock:
            while self._abandoned:
                self._exchange({"end": self._abandoned.popleft()}, [])
            return self._exchange(document, descriptors)

    def _exchange(self, document: Mapping[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        try:
            self._control.settimeout(START_SECONDS)
            socket.send_fds(self._control, [json.dumps(document).encode()], list(descriptors))
            packet = self._control.recv(PACKET)
        except OSError as error:
            self._process.kill()  # an answer that comes late would be taken for the next one's
            raise SandboxDied(f"the process that makes sandboxes does not answer: {error}") from error
        if not packet:
            raise SandboxDied("the process that makes sandboxes has ended; the worker's log says why")
        answer: dict[str, Any] = json.loads(packet)
        return answer

    @property
    def alive(self) -> bool:
        """Whether the template runs."""
        return self._process.poll() is None


def _end_template(control: socket.socket, process: "subprocess.Popen[bytes]", owner: int) -> None:
    control.close()
    if os.getpid() != owner:  # a fork of the worker, whose template this is not
        return
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)


@cache
def _kept(policy: Policy, process: int) -> list[Sandbox]:
    return [Sandbox(policy)]


def sandbox(policy: Policy) -> Sandbox:
    """The one of this process for that policy: started at the first call, and again after it died."""
    kept = _kept(policy, os.getpid())
    if not kept[0].alive:
        kept[0] = Sandbox(policy)
    return kept[0]
