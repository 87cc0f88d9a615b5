"""Keeps stretches of samples in memory, decoded, and reads the next one while another is worked on."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

from workers.data.binding import Batch

Read = Callable[[], Sequence[Batch]]

MOST_BYTES = 512 * 2**20
"""Two shards of the largest size: the one that is worked on, and the next."""


class ReadAhead:
    """The last stretches that were read, as many as fit into ``most_bytes`` (and always the last one).

    For one working thread. ``get`` and ``ahead`` take a stretch's key, which must name all that its samples hang on,
    and what reads it. What ``ahead`` is given runs in another thread, so that it must open files of its own.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._held: OrderedDict[Hashable, tuple[Sequence[Batch], int]] = OrderedDict()
        self._reading: tuple[Hashable, _Reading] | None = None

    def get(self, key: Hashable, read: Read) -> Sequence[Batch]:
        """The stretch: from memory, from the thread that is at it, or read now; raises what reading raises."""
        if self._reading is not None and self._reading[0] == key:
            self._take()
        if key not in self._held:
            self._hold(key, read())
        self._held.move_to_end(key)
        return self._held[key][0]

    def ahead(self, key: Hashable, read: Read) -> None:
        """Read the stretch in the background, unless it is there; what was read before and never asked for is kept.

        An error is not told here: ``get`` then reads again, and meets it.
        """
        if key in self._held or (self._reading is not None and self._reading[0] == key):
            return
        self._take()
        reading = _Reading(read)
        reading.start()
        self._reading = (key, reading)

    def _take(self) -> None:
        if self._reading is None:
            return
        key, reading = self._reading
        self._reading = None
        reading.join()
        if reading.batches is not None:
            self._hold(key, reading.batches)

    def _hold(self, key: Hashable, batches: Sequence[Batch]) -> None:
        self._held[key] = (batches, _bytes_of(batches))
        while len(self._held) > 1 and sum(size for _, size in self._held.values()) > self._most:
            self._held.popitem(last=False)


class _Reading(threading.Thread):
    def __init__(self, read: Read) -> None:
        super().__init__(name="read ahead", daemon=True)
        self._read = read
        self.batches: Sequence[Batch] | None = None

    def run(self) -> None:
        try:
            self.batches = self._read()
        except Exception:  # told where the stretch is asked for
            self.batches = None


def _bytes_of(batches: Sequence[Batch]) -> int:
    arrays = [array for each in batches for array in (*each.inputs.values(), each.targets) if array is not None]
    return sum(each.nbytes for each in arrays)
