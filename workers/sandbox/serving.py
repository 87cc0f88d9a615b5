"""The inner side: opens what it is told to, and answers one request after the other until the worker is gone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from workers.sandbox.errors import to_document
from workers.sandbox.wire import Array, Channel, Closed, Message


@dataclass(frozen=True)
class Reply:
    """One answer to a request."""

    document: Any = None
    arrays: Mapping[str, Array] = field(default_factory=dict)


class Stopped(Exception):
    """The worker wants no more answers to this request."""


Fetch = Callable[[], Message | None]
"""Asks the worker for the next part of its input; None: there is no more."""


class Served(Protocol):
    """A thing that is open in this process."""

    def opened(self) -> Reply:
        """What the worker is told of it first."""

    def answers(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        """The answers to one request; it may raise anything."""


Opener = Callable[[Sequence[Path], Message], Served]


def serve(channel: Channel, opener: Opener, files: Sequence[Path]) -> None:
    """Open the files, then answer until the worker closes the channel."""
    try:
        try:
            served = opener(files, channel.receive())
            first = served.opened()
        except Closed:
            raise
        except BaseException as error:  # whatever a stranger's file makes a parser raise
            channel.send("error", to_document(error))
            return
        channel.send("item", first.document, first.arrays)
        while True:
            asked = channel.receive()
            if asked.kind == "stop":
                channel.send("stopped")
                continue
            _answer(channel, served, asked)
    except Closed:
        return


def _answer(channel: Channel, served: Served, asked: Message) -> None:
    def fetch() -> Message | None:
        channel.send("more")
        message = channel.receive()
        if message.kind == "stop":
            raise Stopped
        return message if message.kind == "part" else None

    try:
        for reply in served.answers(asked, fetch):
            channel.send("item", reply.document, reply.arrays)
            if channel.waiting():
                channel.receive()
                raise Stopped
    except Stopped:
        channel.send("stopped")
    except Closed:
        raise
    except BaseException as error:  # told to the worker, which decides what it means
        channel.send("error", to_document(error))
    else:
        channel.send("end")
