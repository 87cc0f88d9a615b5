"""What is made of a file at once: the sandbox opens it, answers with the result, and has nothing more to say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.sandbox.serving import Fetch, Opener, Reply
from workers.sandbox.wire import Array, Message

Make = Callable[[Sequence[Path], Message], Reply]


@dataclass(frozen=True)
class ServedResult:
    """A result that is there."""

    result: Reply

    def opened(self) -> Reply:
        """The result."""
        return self.result

    def answers(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        """None."""
        return iter(())


def once(make: Make) -> Opener:
    """The opener whose answer is what ``make`` makes of the files."""
    return lambda files, asked: ServedResult(make(files, asked))


def as_array(content: bytes) -> Array:
    """Bytes, to be sent."""
    return np.frombuffer(content, np.uint8)


def read_files(paths: Sequence[Path]) -> dict[str, Array]:
    """The files by their names, to be sent."""
    return {each.name: np.fromfile(each, np.uint8) for each in paths}


def sent_files(arrays: Mapping[str, Array], names: Sequence[str]) -> dict[str, bytes]:
    """Those files that arrived; raises ValueError where others did than these (and ``<name>.data`` beside a graph)."""
    allowed = {*names, *(f"{each}.data" for each in names)}
    if not arrays.keys() <= allowed or not arrays.keys() >= set(names):
        raise ValueError(f"the files are {sorted(arrays)[:8]}")
    return {name: each.tobytes() for name, each in arrays.items()}
