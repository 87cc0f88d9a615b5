"""One thing that is open in a sandbox, as the worker sees it: requests, answers, and how it ends."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol, TypeVar
from weakref import finalize

from pydantic import ValidationError

from service.domain.errors import Unavailable
from workers.sandbox.errors import SandboxDied, from_document, plain
from workers.sandbox.measures import ADAPTER, Measure, missing, told
from workers.sandbox.policy import Policy
from workers.sandbox.wire import NO_ARRAYS, Array, Channel, Closed, Garbled, Message, TooSlow

STOP_SECONDS = 30.0

Result = TypeVar("Result")
Parts = Iterator[tuple[Any, Mapping[str, Array]]]


class Maker(Protocol):
    """What has made the process, and ends it."""

    @property
    def policy(self) -> Policy:
        """How its sandboxes are kept."""

    def end(self, holder: int) -> str:
        """How that sandbox has ended; it is killed where it has not."""

    def abandon(self, holder: int) -> None:
        """Nobody refers to that sandbox any more."""


class Confined:
    """One thing that is open in a sandbox. For one thread; ``first`` is what it told of itself."""

    measures: tuple[Measure, ...] = ()
    first: Message

    def __init__(self, sandbox: Maker, channel: Channel, holder: int) -> None:
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
        found = list(islice(self.stream(kind, document, arrays), 2))
        if len(found) != 1:
            raise self._died(f"it gave {'no answer' if not found else 'several answers'} to {kind}")
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

    def checked(self, read: Callable[[], Result]) -> Result:
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
            deadline = time.monotonic() + STOP_SECONDS
            self._channel.send("stop", seconds=STOP_SECONDS)
            while self._channel.receive(STOP_SECONDS).kind != "stopped":
                if time.monotonic() > deadline:
                    raise TooSlow("it goes on answering")
        except (Closed, Garbled, TooSlow):
            self.end()

    def _send(self, kind: str, document: Any = None, arrays: Mapping[str, Array] = NO_ARRAYS) -> None:
        if not self.alive:
            raise SandboxDied("the process that had the file open has ended before")
        try:
            self._channel.send(kind, document, arrays, self._policy.silent_seconds)
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


def _leave(sandbox: Maker, channel: Channel, holder: int) -> None:
    channel.close()
    sandbox.abandon(holder)
