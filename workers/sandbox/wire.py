"""What crosses the line between worker and sandbox: JSON documents and raw arrays, never a pickle.

A frame is a fixed head, a JSON text, and the arrays' bytes one after the other. Whatever arrives is held against limits
and a list of dtypes before anything is allocated, since the other side may be in a stranger's hands.
"""

import json
import math
import select
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

MAGIC = b"qsv1"
HEAD = struct.Struct("<4sI")
MOST_TEXT = 32 * 2**20
MOST_ARRAYS = 2**16
MOST_BYTES = 4 * 2**30
"""Of all arrays in a frame: a shard of inputs has at most 256 MiB, and weights of one layer may be larger."""
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = frozenset(("bool", *INTEGERS, "float16", "float32", "float64", "complex64", "complex128"))
NO_ARRAYS: Mapping[str, Array] = {}


class Garbled(Exception):
    """What arrived is no frame, or one beyond the limits."""


class Closed(Exception):
    """The other side is gone."""


class TooSlow(Exception):
    """The other side said nothing for as long as it may."""


@dataclass(frozen=True)
class Message:
    """``document``: what JSON can hold. ``arrays``: by name, of the dtypes in ``DTYPES``."""

    kind: str
    document: Any = None
    arrays: Mapping[str, Array] = field(default_factory=dict)


class Channel:
    """Messages over a connected stream socket. For one thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(
        self,
        kind: str,
        document: Any = None,
        arrays: Mapping[str, Array] = NO_ARRAYS,
        seconds: float | None = None,
    ) -> None:
        """Send one message; raises Closed, and TypeError for an array of a dtype that is not sent.

        Closed too where nothing of it is taken within so many seconds.
        """
        held = {name: np.ascontiguousarray(each).reshape(np.shape(each)) for name, each in arrays.items()}
        for name, each in held.items():
            if each.dtype.name not in DTYPES or not each.dtype.isnative:
                raise TypeError(f"{name} has dtype {each.dtype}, which is not sent")
        described = [{"name": name, "dtype": each.dtype.name, "shape": each.shape} for name, each in held.items()]
        text = json.dumps({"kind": kind, "document": document, "arrays": described}).encode()
        if len(text) > MOST_TEXT:
            raise ValueError(f"a message has {len(text)} bytes of text; at most {MOST_TEXT} are sent")
        self._connection.settimeout(seconds)
        try:
            self._connection.sendall(HEAD.pack(MAGIC, len(text)) + text)
            for each in held.values():
                if each.size:
                    self._connection.sendall(_bytes_of(each))
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self, seconds: float | None = None) -> Message:
        """The next message; raises Closed, Garbled, and TooSlow where it is not there within so many seconds."""
        deadline = None if seconds is None else time.monotonic() + seconds
        head = bytearray(HEAD.size)
        self._fill(memoryview(head), deadline)
        magic, length = HEAD.unpack(head)
        if magic != MAGIC or length > MOST_TEXT:
            raise Garbled("it does not begin as a message does")
        text = bytearray(length)
        self._fill(memoryview(text), deadline)
        try:
            parsed = json.loads(bytes(text))
            kind, document, described = parsed["kind"], parsed["document"], parsed["arrays"]
            shapes = _checked(described)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise Garbled(f"its text is none of a message: {type(error).__name__}") from error
        if not isinstance(kind, str):
            raise Garbled("its kind is no text")
        arrays: dict[str, Array] = {}
        for name, (dtype, shape) in shapes.items():
            try:
                arrays[name] = np.empty(shape, dtype)
            except (ValueError, MemoryError) as error:
                raise Garbled(f"no room for an array of shape {shape}") from error
            if arrays[name].size:
                self._fill(_bytes_of(arrays[name]), deadline)
        return Message(kind, document, arrays)

    def waiting(self) -> bool:
        """Whether something has come that was not read yet."""
        return bool(select.select([self._connection], [], [], 0)[0])

    def close(self) -> None:
        """Let the other side see the end."""
        self._connection.close()

    def _fill(self, into: memoryview, deadline: float | None) -> None:
        while len(into):
            try:
                self._connection.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
                received = self._connection.recv_into(into)
            except TimeoutError as error:
                raise TooSlow from error
            except OSError as error:
                raise Closed(str(error)) from error
            if received == 0:
                raise Closed("the other side has ended")
            into = into[received:]


def _bytes_of(array: Array) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _checked(described: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name → dtype and shape; raises ValueError or TypeError for what is not sent, or is too large."""
    if not isinstance(described, list) or len(described) > MOST_ARRAYS:
        raise ValueError("no list of arrays, or one that is too long")
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    total = 0
    for each in described:
        name, dtype, shape = each["name"], each["dtype"], each["shape"]
        if not isinstance(name, str) or name in found or dtype not in DTYPES:
            raise ValueError("a wrong name or dtype")
        if len(shape) > 32 or not all(type(size) is int and 0 <= size <= MOST_BYTES for size in shape):
            raise ValueError("a wrong shape")
        total += math.prod(shape) * np.dtype(dtype).itemsize
        if total > MOST_BYTES:
            raise ValueError("too many bytes")
        found[name] = (dtype, tuple(shape))
    return found
