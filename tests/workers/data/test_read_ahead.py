import threading
from collections.abc import Sequence

import numpy as np
import pytest

from tests.workers.installation import wait_for
from workers.data.binding import Batch
from workers.data.read_ahead import ReadAhead

SIZE = 4 * 100
"""Bytes of a batch."""


def stretch(number: int) -> list[Batch]:
    return [Batch({"x": np.full(100, number, np.float32)}, None, np.arange(100))]


class Reader:
    """Reads stretches by number and counts how often, and in which thread."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, bool]] = []

    def of(self, number: int):
        def read() -> Sequence[Batch]:
            self.reads.append((number, threading.current_thread() is threading.main_thread()))
            return stretch(number)

        return read


def value(batches: Sequence[Batch]) -> float:
    return float(batches[0].inputs["x"][0])


def test_what_was_read_ahead_is_not_read_again() -> None:
    reader, ahead = Reader(), ReadAhead()
    assert value(ahead.get("a", reader.of(1))) == 1
    ahead.ahead("b", reader.of(2))
    assert value(ahead.get("b", reader.of(99))) == 2
    assert value(ahead.get("a", reader.of(99))) == 1
    assert reader.reads == [(1, True), (2, False)]


def test_reading_goes_on_beside_the_work_and_is_waited_for() -> None:
    ahead, begun, go_on = ReadAhead(), threading.Event(), threading.Event()

    def slow() -> Sequence[Batch]:
        begun.set()
        assert go_on.wait(10)
        return stretch(7)

    ahead.ahead("a", slow)
    assert begun.wait(10)
    threading.Timer(0.05, go_on.set).start()
    assert value(ahead.get("a", lambda: pytest.fail("it was read ahead"))) == 7


def test_asking_ahead_for_what_is_there_reads_nothing() -> None:
    reader, ahead = Reader(), ReadAhead()
    ahead.get("a", reader.of(1))
    ahead.ahead("a", reader.of(1))
    ahead.ahead("b", reader.of(2))
    ahead.ahead("b", reader.of(2))
    ahead.get("b", reader.of(2))
    assert [number for number, _ in reader.reads] == [1, 2]


def test_an_error_ahead_is_met_by_whoever_asks() -> None:
    ahead = ReadAhead()

    def broken() -> Sequence[Batch]:
        raise ValueError("image 5 is damaged")

    ahead.ahead("a", broken)
    with pytest.raises(ValueError, match="image 5 is damaged"):
        ahead.get("a", broken)


def test_the_oldest_go_first_and_memory_stays_bounded() -> None:
    reader, ahead = Reader(), ReadAhead(most_bytes=2 * SIZE)
    for number in (1, 2, 1, 3, 1, 2):
        assert value(ahead.get(number, reader.of(number))) == number
    assert [number for number, _ in reader.reads] == [1, 2, 3, 2]


def test_one_stretch_is_always_kept_however_large() -> None:
    reader, ahead = Reader(), ReadAhead(most_bytes=1)
    ahead.get("a", reader.of(1))
    ahead.get("a", reader.of(1))
    ahead.ahead("b", reader.of(2))
    wait_for(lambda: len(reader.reads) == 2)
    assert value(ahead.get("b", reader.of(2))) == 2
    assert len(reader.reads) == 2
