"""What every store of files promises, a folder and a bucket alike."""

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from service.domain.storage import S3Location
from service.store.blobs import BlobStore, DamagedBlob, Span
from service.store.folder_blobs import FolderBlobStore
from tests.s3_server import BUCKET, S3Server, client

LARGE = bytes(range(256)) * 2**17
"""32 MiB: three parts of a multipart upload."""
UNKNOWN = "0" * 64


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return FolderBlobStore(tmp_path / "blobs")
    request.getfixturevalue("s3")
    from service.store.blob_cache import BlobCache
    from service.store.s3_blobs import S3BlobStore

    return S3BlobStore(S3Location(BUCKET, "files"), BlobCache(tmp_path / "cache", 2**30))


def spoil(store: BlobStore, sha256: str, content: bytes) -> None:
    """As if a disk or somebody else had changed the stored file."""
    if isinstance(store, FolderBlobStore):
        store.path(sha256).write_bytes(content)
    else:
        url = os.environ["AWS_ENDPOINT_URL_S3"]
        client(url).put_object(Bucket=BUCKET, Key=f"files/{sha256}", Body=content)


def everything(store: BlobStore) -> list[str]:
    return sorted(store.written_before(time.time() + 60))


def entering(store: BlobStore) -> Callable[[str], object]:
    return lambda name: store.local(name).__enter__()


def test_bytes_are_stored_under_their_hash_and_read_again(store: BlobStore) -> None:
    blob = store.put(b"content")
    assert (blob.sha256, blob.size) == (hashlib.sha256(b"content").hexdigest(), 7)
    assert store.read(blob.sha256) == b"content"
    assert everything(store) == [blob.sha256]


@pytest.mark.parametrize("content", [b"", b"x", LARGE], ids=["empty", "small", "in parts"])
def test_a_writer_stores_what_was_written_in_pieces(store: BlobStore, content: bytes) -> None:
    with store.writer() as writer:
        for start in range(0, len(content), 2**20 + 1):
            writer.write(content[start : start + 2**20 + 1])
        blob = writer.commit()
    assert (blob.sha256, blob.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert store.read(blob.sha256) == content


def test_what_a_writer_has_so_far_can_be_inspected_and_nobody_else_sees_it(store: BlobStore) -> None:
    with store.writer() as writer:
        writer.write(b"abc")
        assert writer.flush().read_bytes() == b"abc"
        assert everything(store) == []


@pytest.mark.parametrize("fails", [False, True], ids=["abandoned", "raised"])
def test_a_writer_that_does_not_commit_leaves_nothing(store: BlobStore, fails: bool) -> None:
    def write() -> Path:
        with store.writer() as writer:
            writer.write(b"abc")
            if fails:
                raise KeyError
            return writer.path

    if fails:
        with pytest.raises(KeyError):
            write()
    else:
        assert not write().exists()
    assert everything(store) == []
    assert store.discard_unfinished(time.time() + 60) == 0


def test_a_file_is_stored_as_it_is(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    blob = store.put_file(path)
    assert (blob.sha256, blob.size) == (hashlib.sha256(LARGE).hexdigest(), len(LARGE))
    assert store.read(blob.sha256) == LARGE
    assert path.read_bytes() == LARGE


@pytest.mark.parametrize("span", [Span(0, 1), Span(3, 7), Span(6, 7), Span(0, 7)], ids=str)
def test_a_part_can_be_read(store: BlobStore, span: Span) -> None:
    blob = store.put(b"content")
    with closing(store.open(blob.sha256, span)) as file:
        assert file.read() == b"content"[span.start : span.stop]
        assert file.read(1) == b""


def test_reading_goes_on_piece_by_piece(store: BlobStore) -> None:
    with closing(store.open(store.put(b"content").sha256, Span(1, 6))) as file:
        assert [file.read(2), file.read(2), file.read(2), file.read(2)] == [b"on", b"te", b"n", b""]


def test_a_path_holds_the_content_and_stays_while_it_is_used(store: BlobStore) -> None:
    blob = store.put(b"content")
    with store.local(blob.sha256) as path, store.local(blob.sha256) as again:
        assert path.read_bytes() == b"content"
        assert path == again


def test_a_file_that_is_not_there_is_said_so(store: BlobStore) -> None:
    for use in (store.read, store.open, entering(store)):
        with pytest.raises(FileNotFoundError, match="No such file"):
            use(UNKNOWN)


def test_no_text_but_a_hash_is_a_name(store: BlobStore) -> None:
    for name in ("", "../x", "A" * 64, "0" * 63, "0" * 64 + "\n"):
        for use in (store.read, store.open, store.delete, entering(store)):
            with pytest.raises(ValueError, match="not a SHA-256"):
                use(name)


def test_what_was_changed_behind_its_name_is_not_read(store: BlobStore) -> None:
    blob = store.put(b"content")
    spoil(store, blob.sha256, b"CONTENT")
    with pytest.raises(DamagedBlob, match=blob.sha256):
        store.read(blob.sha256)


def test_a_deleted_file_is_gone_and_deleting_it_again_is_no_error(store: BlobStore) -> None:
    blob = store.put(b"content")
    with store.local(blob.sha256):
        pass
    assert store.delete(blob.sha256)
    assert everything(store) == []
    for use in (store.read, entering(store)):
        with pytest.raises(FileNotFoundError):
            use(blob.sha256)
    assert not store.delete(blob.sha256)


def test_who_reads_a_file_that_is_deleted_reads_it_to_the_end(store: BlobStore) -> None:
    blob = store.put(b"content")
    with store.local(blob.sha256) as path, path.open("rb") as file:
        store.delete(blob.sha256)
        assert file.read() == b"content"


def test_what_was_stored_since_is_neither_listed_nor_deleted(store: BlobStore) -> None:
    blob = store.put(b"content")
    for deadline, old in ((time.time() - 60, False), (time.time() + 60, True)):
        assert store.written_before(deadline) == ([blob.sha256] if old else [])
        assert store.delete(blob.sha256, written_before=deadline) is old


def test_storing_the_same_bytes_again_renews_them(store: BlobStore) -> None:
    first = store.put(b"content")
    time.sleep(1.1)  # S3 tells seconds
    between = time.time()
    time.sleep(1.1)
    assert store.put(b"content") == first
    assert store.written_before(between) == []
    assert store.read(first.sha256) == b"content"


def test_what_a_dead_writer_left_is_discarded_once_it_is_old(store: BlobStore) -> None:
    writer = store.writer().__enter__()
    writer.write(b"half")
    path = writer.flush()
    assert store.discard_unfinished(time.time() - 60) == 0
    assert path.exists()
    assert store.discard_unfinished(time.time() + 60) == 1
    assert not path.exists()


def test_a_store_that_works_passes_its_check(store: BlobStore) -> None:
    store.check()


def test_many_threads_store_and_read_the_same_files(store: BlobStore) -> None:
    contents = [bytes([each]) * 1000 for each in range(4)]
    together = threading.Barrier(8)

    def work(number: int) -> bool:
        together.wait()
        content = contents[number % 4]
        blob = store.put(content)
        with store.local(blob.sha256) as path:
            return store.read(blob.sha256) == path.read_bytes() == content

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(everything(store)) == 4


def test_objects_of_others_in_the_bucket_are_not_ours(s3: S3Server, tmp_path: Path) -> None:
    from service.store.blob_cache import BlobCache
    from service.store.s3_blobs import S3BlobStore

    ours = S3BlobStore(S3Location(BUCKET, "files"), BlobCache(tmp_path / "cache", 2**30))
    theirs = ["report.txt", f"other/{UNKNOWN}", "files/readme", f"files/deeper/{UNKNOWN}", f"files2/{UNKNOWN}"]
    for key in theirs:
        client(s3.url).put_object(Bucket=BUCKET, Key=key, Body=b"x")
    assert everything(ours) == []
    whole = S3BlobStore(S3Location(BUCKET), BlobCache(tmp_path / "cache", 2**30))
    assert everything(whole) == []
    blob = whole.put(b"content")
    assert set(s3.objects()) == {*theirs, blob.sha256}


def test_nobody_stores_a_file_in_the_folder_while_another_process_deletes(tmp_path: Path) -> None:
    """The lock is a file's, since other machines do not see a folder's over NFS."""
    store = FolderBlobStore(tmp_path / "blobs")
    store.put(b"first")
    with (tmp_path / "blobs" / ".lock").open("rb+") as file, ThreadPoolExecutor(1) as pool:
        fcntl.flock(file, fcntl.LOCK_EX)  # as a deletion does, by a file description of its own
        stored = pool.submit(store.put, b"second")
        with pytest.raises(TimeoutError):
            stored.result(0.3)
        fcntl.flock(file, fcntl.LOCK_UN)
        assert store.path(stored.result(10).sha256).exists()
