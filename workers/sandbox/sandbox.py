"""The worker's side: one template for the life of this process, and what it opens in processes of their own."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from weakref import finalize

from pydantic import ValidationError

from service.domain.errors import Unavailable
from workers.sandbox.errors import SandboxDied, from_document, plain
from workers.sandbox.measures import ADAPTER, Measure, missing, told
from workers.sandbox.policy import Policy
from workers.sandbox.template import PACKET, POLICY
from workers.sandbox.wire import NO_ARRAYS, Array, Channel, Closed, Garbled, Message, TooSlow

START_SECONDS = 600.0
STOP_SECONDS = 30.0
ENTRY = "workers.sandboxed"
PROBE = "nothing"
"""The kind of sandbox that opens no file."""
KEPT_VARIABLES = (
    *("PATH", "PYTHONPATH", "PYTHONHASHSEED", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
    *("CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
)
"""Of the environment; whatever else is there may be a credential."""

Result = TypeVar("Result")
Parts = Iterator[tuple[Any, Mapping[str, Array]]]


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
            found: Result = opened.checked(lambda: read(opened.first))
            return found
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
    ) -> "Confined":
        """The files, opened within so many seconds.

        Raises what opening raised (RejectedFile, OutOfMemory, …), SandboxDied, and Unavailable where the host does not
        permit what is required.
        """
        ours, theirs = socket.socketpair()
        with ExitStack() as stack:
            stack.enter_context(theirs)
            opened = [stack.enter_context(each.open("rb")).fileno() for each in files]
            asked = {"open": kind, "paths": [os.path.realpath(each) for each in files]}
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


class Confined:
    """One thing that is open in a sandbox. For one thread; ``first`` is what it told of itself."""

    measures: tuple[Measure, ...] = ()
    first: Message

    def __init__(self, sandbox: Sandbox, channel: Channel, holder: int) -> None:
        self._channel, self._policy = channel, sandbox.policy
        self._stream: Generator[Message] | None = None
        self._sandbox, self._holder = sandbox, holder
        self._left = finalize(self, _leave, sandbox, channel, holder)
        self._left.atexit = False  # the template's end ends all

    def begin(self, document: Any, arrays: Mapping[str, Array], seconds: float) -> None:
        """Let it open its files, once it is known what confines it."""
        confined = self._told_first(self._policy.open_seconds)
        self.measures = self.checked(lambda: ADAPTER.validate_python(confined.document))
        lacking = missing(self.measures) if self._policy.demand == "required" else []
        if lacking:
            self.end()
            raise Unavailable(f"this worker opens no file, since its setting sandbox is 'required': {told(lacking)}")
        self._send("open", document, arrays)
        self.first = self._told_first(seconds)

    @property
    def alive(self) -> bool:
        """Whether its process has not ended, as far as is known here."""
        return self._left.alive

    def end(self) -> str:
        """End its process; how that ended."""
        if self._left.detach() is None:
            return "it had ended before"
        self._channel.close()
        try:
            return self._sandbox.end(self._holder)
        except SandboxDied as error:
            return str(error)

    def one(self, kind: str, document: Any = None, arrays: Mapping[str, Array] = NO_ARRAYS) -> Message:
        """The only answer to a request."""
        found = list(self.stream(kind, document, arrays))
        if len(found) != 1:
            raise self._died(f"it gave {len(found)} answers to {kind}")
        return found[0]

    def stream(
        self, kind: str, document: Any = None, arrays: Mapping[str, Array] = NO_ARRAYS, parts: Parts | None = None
    ) -> Iterator[Message]:
        """The answers to a request as they come; ``parts``: what it may ask for meanwhile, as document and arrays.

        A request that comes before all answers were taken ends this one.
        """
        if self._stream is not None:
            self._stream.close()
        self._stream = self._answers(kind, document, arrays, parts)
        return self._stream

    def checked(self, read: Callable[[], Any]) -> Any:
        """What ``read`` makes of an answer; an answer that it cannot read ends the sandbox."""
        try:
            return read()
        except (ValidationError, LookupError, TypeError, ValueError) as error:
            raise self._died(f"its answer cannot be read ({type(error).__name__})") from error

    def _told_first(self, seconds: float) -> Message:
        try:
            return self._receive(seconds)
        except _Told as error:
            self.end()
            raise error.told from None

    def _answers(
        self, kind: str, document: Any, arrays: Mapping[str, Array], parts: Parts | None
    ) -> Generator[Message]:
        self._send(kind, document, arrays)
        done = False
        try:
            while True:
                message = self._receive(self._policy.silent_seconds)
                if message.kind == "end":
                    done = True
                    return
                if message.kind == "item":
                    yield message
                elif message.kind == "more":
                    part = next(parts, None) if parts is not None else None
                    if part is None:
                        self._send("last")
                    else:
                        self._send("part", *part)
                else:
                    raise self._died(f"it answers {plain(message.kind)[:40]!r}")
        except _Told as error:
            done = True
            raise error.told from None
        finally:
            if not done and self.alive:
                self._stop()

    def _stop(self) -> None:
        """Let it give up the request that it is at; one that does not is ended."""
        try:
            self._channel.send("stop")
            while self._channel.receive(STOP_SECONDS).kind != "stopped":
                pass
        except (Closed, Garbled, TooSlow):
            self.end()

    def _send(self, kind: str, document: Any = None, arrays: Mapping[str, Array] = NO_ARRAYS) -> None:
        if not self.alive:
            raise SandboxDied("the process that had the file open has ended before")
        try:
            self._channel.send(kind, document, arrays)
        except Closed as error:
            raise self._died(None) from error

    def _receive(self, seconds: float) -> Message:
        try:
            message = self._channel.receive(seconds)
        except TooSlow as error:
            raise self._died(f"it said nothing for {seconds:.0f} s") from error
        except Garbled as error:
            raise self._died(f"it does not keep to the protocol: {error}") from error
        except Closed as error:
            raise self._died(None) from error
        if message.kind == "error":
            raise _Told(from_document(message.document))
        return message

    def _died(self, why: str | None) -> SandboxDied:
        status = self.end()
        if why is None:
            why = f"it ended with {status}" + (", as on running out of memory" if "SIGKILL" in status else "")
        return SandboxDied(f"the process that had the file open is gone: {why}")


class _Told(Exception):
    """The sandbox's own error, which leaves it ready for the next request."""

    def __init__(self, told: Exception) -> None:
        super().__init__(str(told))
        self.told = told


def _leave(sandbox: Sandbox, channel: Channel, holder: int) -> None:
    channel.close()
    sandbox.abandon(holder)
