"""Copies of stored files: verified, bounded, shared by processes, evicted by last use and never in use."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from service.store.blob_cache import BlobCache, CacheFull, CacheTooSmall
from service.store.blob_writer import Blob
from service.store.blobs import DamagedBlob


class Source:
    """Where the files come from; it counts how often each was fetched."""

    def __init__(self, cache: BlobCache) -> None:
        self.cache = cache
        self.contents: dict[str, bytes] = {}
        self.fetched: list[str] = []

    def blob(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        self.contents[name] = content
        return name

    def size_of(self, name: str) -> int:
        return len(self.contents[name])

    @contextmanager
    def hold(self, name: str) -> Iterator[Path]:
        def fetch(file: BinaryIO) -> None:
            self.fetched.append(name)
            file.write(self.contents[name])

        with self.cache.hold(name, self.size_of, fetch) as path:
            yield path

    def use(self, *names: str) -> None:
        """Hold each for a moment, one after the other."""
        for name in names:
            with self.hold(name) as path:
                assert path.read_bytes() == self.contents[name]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(BlobCache(tmp_path / "cache", 300))


def copies(cache: BlobCache) -> set[str]:
    return {path.name for path in (cache.folder / "copies").iterdir()}


def arriving(cache: BlobCache) -> list[Path]:
    return list((cache.folder / "arriving").iterdir())


def test_a_copy_is_fetched_once_and_then_found(source: Source) -> None:
    name = source.blob(b"x" * 100)
    source.use(name, name)
    assert source.fetched == [name]
    assert copies(source.cache) == {name}


def test_the_copy_that_was_used_longest_ago_goes_first(source: Source) -> None:
    a, b, c, d = (source.blob(letter * 100) for letter in (b"a", b"b", b"c", b"d"))
    source.use(a, b, c, a, d)
    assert copies(source.cache) == {a, c, d}
    source.use(b)
    assert copies(source.cache) == {a, b, d}


def test_all_copies_together_never_take_more_than_the_limit(source: Source) -> None:
    names = [source.blob(bytes([number]) * size) for number, size in enumerate([10, 290, 150, 150, 1, 299, 300, 7])]
    for name in names:
        source.use(name)
        assert sum(len(source.contents[each]) for each in copies(source.cache)) <= 300
    assert copies(source.cache) == {names[-1]}


def test_a_copy_in_use_stays_though_it_was_used_longest_ago(source: Source) -> None:
    a, b, c, d = (source.blob(letter * 100) for letter in (b"a", b"b", b"c", b"d"))
    with source.hold(a) as path:
        source.use(b, c, d)
        assert copies(source.cache) == {a, c, d}
        assert path.read_bytes() == b"a" * 100
    source.use(b, c)
    assert copies(source.cache) == {b, c, d}


def test_where_what_is_in_use_takes_the_room_the_error_says_so_and_it_passes(source: Source) -> None:
    a, b = source.blob(b"a" * 200), source.blob(b"b" * 101)
    with source.hold(a), pytest.raises(CacheFull, match="200 are in use, and 101 more are needed"):
        source.use(b)
    source.use(b)


def test_a_file_larger_than_the_limit_can_never_be_held(source: Source) -> None:
    small = source.blob(b"x")
    source.use(small)
    with pytest.raises(CacheTooSmall, match=r"301 bytes does not fit .*: set QUANTSIEVE_BLOB_CACHE_BYTES higher"):
        source.use(source.blob(b"a" * 301))
    assert copies(source.cache) == {small}


@pytest.mark.parametrize("came", [b"y" * 100, b"x" * 99, b"x" * 101, b""], ids=["other", "short", "long", "nothing"])
def test_what_came_damaged_is_refused_and_nothing_of_it_stays(source: Source, came: bytes) -> None:
    name = source.blob(b"x" * 100)

    def fetch(file: BinaryIO) -> None:
        file.write(came)

    with pytest.raises(DamagedBlob, match=name), source.cache.hold(name, lambda _: 100, fetch):
        pass
    assert copies(source.cache) == set()
    assert arriving(source.cache) == []
    source.use(name)


def test_a_fetch_that_fails_leaves_nothing_and_takes_no_room(source: Source) -> None:
    name = source.blob(b"x" * 300)

    def fetch(file: BinaryIO) -> None:
        file.write(b"x")
        raise ConnectionError

    for _ in range(2):
        with pytest.raises(ConnectionError), source.cache.hold(name, source.size_of, fetch):
            pass
        assert arriving(source.cache) == []
    source.use(name)


def test_threads_that_want_the_same_file_at_once_fetch_it_once(source: Source) -> None:
    name = source.blob(b"x" * 100)
    together = threading.Barrier(8)

    def want(_: int) -> None:
        together.wait()
        source.use(name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(want, range(8)))
    assert source.fetched == [name]


def test_readers_always_read_the_right_bytes_while_others_evict(source: Source) -> None:
    """Twelve files, room for three: each use evicts what another thread will want next."""
    names = [source.blob(bytes([number]) * 100) for number in range(12)]

    def read(seed: int) -> None:
        for step in range(40):
            try:
                source.use(names[(seed * 7 + step * 5) % len(names)])
            except CacheFull:  # three others hold theirs
                time.sleep(0.001)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
    assert len(copies(source.cache)) <= 3
    assert arriving(source.cache) == []


def test_a_copy_that_is_evicted_while_somebody_opens_it_is_fetched_again(source: Source) -> None:
    name = source.blob(b"x")
    source.use(name)
    path = source.cache.folder / "copies" / name
    with path.open("rb") as evictor:
        fcntl.flock(evictor, fcntl.LOCK_EX)
        reader = threading.Thread(target=source.use, args=(name,))
        reader.start()
        while opened_here(path) < 2:
            time.sleep(0.001)
        path.unlink()
    reader.join()
    assert source.fetched == [name, name]
    assert copies(source.cache) == {name}


def opened_here(path: Path) -> int:
    """How many of this process's descriptors are of this file."""
    return sum(each.exists() and each.samefile(path) for each in Path("/proc/self/fd").iterdir())


HOLDER = """
import sys, time
from pathlib import Path
from service.store.blob_cache import BlobCache
cache = BlobCache(Path(sys.argv[1]), 300)
how = sys.argv[3]
def fetch(file):
    file.write(b"h" * 10)
    file.flush()
    if how == "fetching":
        print("ready", flush=True)
        time.sleep(60)
    file.write(b"h" * 190)
with cache.hold(sys.argv[2], lambda _: 200, fetch):
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def other_process(source: Source, how: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds 200 bytes, or is in the midst of fetching them."""
    name = source.blob(b"h" * 200)
    command = [sys.executable, "-c", HOLDER, str(source.cache.folder), name, how]
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", ["holding", "fetching"])
def test_what_another_process_uses_stays_until_that_process_is_dead(source: Source, how: str) -> None:
    mine = source.blob(b"m" * 150)
    with other_process(source, how) as process:
        with pytest.raises(CacheFull):
            source.use(mine)
        process.send_signal(signal.SIGKILL)
        process.wait()
        source.use(mine)
    assert copies(source.cache) == {mine}
    assert arriving(source.cache) == []


def test_an_upload_becomes_a_copy_where_there_is_room(source: Source, tmp_path: Path) -> None:
    name = source.blob(b"u" * 200)
    for again in (False, True):
        upload = tmp_path / "cache" / "upload"
        upload.write_bytes(b"u" * 200)
        assert source.cache.adopt(upload, Blob(name, 200)) is not again
        assert upload.exists() is again
    source.use(name)
    assert source.fetched == []
    with source.hold(name):
        assert not source.cache.adopt(upload, Blob(source.blob(b"v" * 101), 101))
    assert not source.cache.adopt(upload, Blob(source.blob(b"w" * 301), 301))
    assert copies(source.cache) == {name}


def test_a_dropped_copy_is_fetched_again(source: Source) -> None:
    name = source.blob(b"x")
    source.use(name)
    source.cache.drop(name)
    source.cache.drop(name)
    assert copies(source.cache) == set()
    source.use(name)
    assert source.fetched == [name, name]
