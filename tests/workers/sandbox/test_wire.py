"""What crosses the line: arrays come as they were sent, and nothing is believed of what is announced."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from workers.sandbox.wire import HEAD, MAGIC, MOST_TEXT, Channel, Closed, Garbled, TooSlow


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield Channel(ours), theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "array",
    [
        np.float32(3.5),
        np.zeros((0, 4), np.int64),
        np.arange(6).reshape(2, 3).T,
        np.array([True, False]),
        np.array([1j]),
    ],
    ids=["a scalar", "empty", "transposed", "bool", "complex"],
)
def test_an_array_comes_as_it_was_sent(ends: tuple[Channel, socket.socket], array: np.ndarray) -> None:
    channel, other = ends
    Channel(other).send("item", {"nan": [float("inf"), 1e-320]}, {"x": np.asarray(array)})
    found = channel.receive(5)
    assert found.document == {"nan": [float("inf"), 1e-320]}
    assert found.arrays["x"].dtype == np.asarray(array).dtype
    assert np.array_equal(found.arrays["x"], array)
    assert found.arrays["x"].shape == np.shape(array)


@pytest.mark.parametrize("array", [np.array([{}], object), np.array(["x"]), np.zeros(2, ">f4")], ids=str)
def test_what_is_no_plain_number_is_not_sent(ends: tuple[Channel, socket.socket], array: np.ndarray) -> None:
    with pytest.raises(TypeError, match="is not sent"):
        ends[0].send("item", None, {"x": array})


def frame(*arrays: Any, **changes: Any) -> bytes:
    text = json.dumps({"kind": "item", "document": None, "arrays": list(arrays), **changes}).encode()
    return HEAD.pack(MAGIC, len(text)) + text


GARBLED = {
    "no head": b"GET / HTTP/1.1\r\n\r\n",
    "too much text": HEAD.pack(MAGIC, MOST_TEXT + 1),
    "no JSON": HEAD.pack(MAGIC, 3) + b"abc",
    "deep JSON": HEAD.pack(MAGIC, 20_000) + b"[" * 20_000,
    "a list": HEAD.pack(MAGIC, 2) + b"[]",
    "a kind that is a number": frame(kind=3),
    "objects": frame({"name": "x", "dtype": "object", "shape": [1]}),
    "a structured dtype": frame({"name": "x", "dtype": "float32,object", "shape": [1]}),
    "terabytes": frame({"name": "x", "dtype": "float32", "shape": [2**20, 2**20]}),
    "terabytes in many": frame(*({"name": str(each), "dtype": "int8", "shape": [2**30]} for each in range(5))),
    "a negative size": frame({"name": "x", "dtype": "int8", "shape": [-1]}),
    "a size that is true": frame({"name": "x", "dtype": "int8", "shape": [True]}),
    "one name twice": frame(*[{"name": "x", "dtype": "int8", "shape": [0]}] * 2),
    "a product that overflows": frame({"name": "x", "dtype": "int8", "shape": [0, 2**32, 2**32, 2**32]}),
}


@pytest.mark.parametrize("sent", GARBLED.values(), ids=GARBLED)
def test_what_is_no_message_is_garbled(ends: tuple[Channel, socket.socket], sent: bytes) -> None:
    channel, other = ends
    other.sendall(sent)
    with pytest.raises(Garbled):
        channel.receive(5)


def test_the_end_and_silence_are_told_apart(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    other.sendall(frame({"name": "x", "dtype": "int8", "shape": [4]}) + b"ab")
    with pytest.raises(TooSlow):
        channel.receive(0.05)
    other.close()
    with pytest.raises(Closed):
        channel.receive(5)


def test_nothing_waits_for_ever_for_one_that_reads_no_more(ends: tuple[Channel, socket.socket]) -> None:
    channel, _ = ends
    with pytest.raises(Closed, match="timed out"):
        channel.send("part", arrays={"x": np.zeros(2**24)}, seconds=0.2)
