"""A bucket that is missing, refuses or is cut off, and clients that are killed: said plainly, and nothing is lost."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain.errors import InvalidInput
from service.domain.storage import S3Location
from service.settings import Settings
from service.store.blobs import BlobStore, StorageUnavailable
from service.store.open_blobs import open_blobs
from tests.cut_line import Line, cut_line
from tests.s3_server import BUCKET, S3Server, client, s3_server

LARGE = os.urandom(2**20) * 48
"""Three parts of 16 MiB."""
NAME = hashlib.sha256(LARGE).hexdigest()
CONTENT = hashlib.sha256(b"content").hexdigest()


def opened(folder: Path, url: str = f"s3://{BUCKET}/files") -> BlobStore:
    return open_blobs(Settings(data_dir=folder, blob_url=url))


@pytest.fixture
def line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """The store's connection to the server; the test's own look goes past it."""
    with cut_line(s3.port) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", line.url)
        yield line


def every_use(store: BlobStore, folder: Path) -> dict[str, object]:
    """All that can be asked of a store, each with a file that is not in the cache."""
    folder.mkdir(exist_ok=True)
    (folder / "file").write_bytes(b"content")

    def write() -> None:
        with store.writer() as writer:
            writer.write(b"content")
            writer.commit()

    return {
        "check": store.check,
        "put": lambda: store.put(b"content"),
        "put_file": lambda: store.put_file(folder / "file"),
        "writer": write,
        "open": lambda: store.open(CONTENT),
        "read": lambda: store.read(CONTENT),
        "local": lambda: store.local(CONTENT).__enter__(),
        "written_before": lambda: store.written_before(time.time()),
        "delete": lambda: store.delete(CONTENT),
        "discard_unfinished": lambda: store.discard_unfinished(time.time()),
    }


def assert_all_say(store: BlobStore, folder: Path, code: str, words: str) -> None:
    for name, use in every_use(store, folder).items():
        with pytest.raises(StorageUnavailable, match=words) as raised:
            use()  # type: ignore[operator]
        assert raised.value.code == code, name
        assert BUCKET not in raised.value.message, name


def test_a_missing_bucket_is_named_as_that(s3: S3Server, tmp_path: Path) -> None:
    store = opened(tmp_path, "s3://no-such-bucket/files")
    assert_all_say(store, tmp_path, "storage-bucket-missing", "the bucket of the files does not exist")


def test_wrong_credentials_are_named_as_that(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3.checking_credentials() as right:
        for name, value in right.items():
            monkeypatch.setenv(name, value)
        opened(tmp_path).put(b"content")
        for name in right:
            with monkeypatch.context() as patch:
                patch.setenv(name, "AKIAWRONG")
                assert_all_say(opened(tmp_path), tmp_path, "storage-refused", "refuses the service's credentials")


def test_no_credentials_at_all_are_named_as_that(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert_all_say(opened(tmp_path), tmp_path, "storage-refused", "has no credentials")


def test_a_network_that_is_cut_is_named_as_that_and_all_works_again_once_it_is_mended(
    line: Line, tmp_path: Path
) -> None:
    store = opened(tmp_path)
    kept = store.put(b"kept before")
    line.cut()
    assert_all_say(store, tmp_path, "storage-unavailable", "does not answer; try again")
    line.mend()
    store.check()
    assert store.read(kept.sha256) == b"kept before"
    assert store.put(b"content").sha256 == CONTENT


def test_a_wrong_endpoint_is_said_before_anything_is_asked(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nowhere")
    with pytest.raises(InvalidInput, match="Invalid endpoint"):
        opened(tmp_path)


@pytest.mark.parametrize("how", ["writer", "put", "put_file"])
def test_an_upload_that_is_cut_off_in_its_midst_leaves_nothing(
    s3: S3Server, line: Line, tmp_path: Path, how: str
) -> None:
    store = opened(tmp_path)
    line.cut_after = 20 * 2**20
    with pytest.raises(StorageUnavailable, match="does not answer"):
        upload(store, how, tmp_path)
    assert line.is_cut
    assert s3.objects() == []
    assert local_files(tmp_path) == set()
    line.mend()
    # the abort could not get through either: that is made up for when the leftovers are looked at
    assert s3.unfinished() == [f"files/{NAME}"]
    assert store.discard_unfinished(time.time() + 60) == 1
    assert s3.unfinished() == []
    upload(store, how, tmp_path)
    assert store.read(NAME) == LARGE


def test_an_upload_whose_part_is_refused_is_aborted(s3: S3Server, tmp_path: Path) -> None:
    store = opened(tmp_path)
    sent = []

    def refuse(request: object, **_: object) -> None:
        sent.append(request)
        if len(sent) == 2:
            raise RuntimeError("the process is asked to end in the midst of the second part")

    store._client.meta.events.register("before-send.s3.UploadPart", refuse)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        upload(store, "writer", tmp_path)
    assert (s3.objects(), s3.unfinished(), local_files(tmp_path)) == ([], [], set())


def upload(store: BlobStore, how: str, folder: Path) -> None:
    if how == "put":
        store.put(LARGE)
    elif how == "put_file":
        source = folder.parent / f"{folder.name}-source"
        source.write_bytes(LARGE)
        store.put_file(source)
    else:
        with store.writer() as writer:
            writer.write(LARGE)
            writer.commit()


def local_files(folder: Path) -> set[Path]:
    """Files of the cache, without those that are only locked."""
    cache = folder / "blob-cache"
    return {path for path in cache.rglob("*") if path.is_file() and path.parent.name != "locks"}


UPLOAD = """
import sys
from pathlib import Path
from service.settings import Settings
from service.store.open_blobs import open_blobs
store = open_blobs(Settings(data_dir=Path(sys.argv[1]), blob_url=sys.argv[2]))
print("ready", flush=True)
with store.writer() as writer:
    writer.write(Path(sys.argv[3]).read_bytes())
    writer.commit()
"""


def test_a_process_that_is_killed_in_the_midst_of_an_upload_leaves_nothing_once_leftovers_are_removed(
    s3: S3Server, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", UPLOAD, str(tmp_path / "data"), f"s3://{BUCKET}/files", str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        deadline = time.monotonic() + 30
        while not s3.unfinished():
            assert time.monotonic() < deadline
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert s3.objects() == []
    assert s3.unfinished() == [f"files/{NAME}"]
    assert len(local_files(tmp_path / "data")) == 1
    store = opened(tmp_path / "data")
    assert store.written_before(time.time() + 60) == []
    assert store.discard_unfinished(time.time() + 60) == 2
    assert s3.unfinished() == []
    assert local_files(tmp_path / "data") == set()


def test_an_upload_whose_last_part_is_young_is_not_aborted(s3: S3Server, tmp_path: Path) -> None:
    where = {"Bucket": BUCKET, "Key": f"files/{NAME}"}
    begun = client(s3.url).create_multipart_upload(**where)["UploadId"]
    client(s3.url).upload_part(**where, UploadId=begun, PartNumber=1, Body=b"x")
    store = opened(tmp_path)
    assert store.discard_unfinished(time.time() - 60) == 0
    assert store.discard_unfinished(time.time() + 60) == 1


def test_unfinished_uploads_of_others_are_not_aborted(s3: S3Server, tmp_path: Path) -> None:
    client(s3.url).create_multipart_upload(Bucket=BUCKET, Key="files/theirs")
    assert opened(tmp_path).discard_unfinished(time.time() + 60) == 0
    assert s3.unfinished() == ["files/theirs"]


def test_a_download_that_is_cut_off_leaves_nothing_and_is_done_once_the_network_is_back(
    line: Line, tmp_path: Path
) -> None:
    store = opened(tmp_path)
    upload(store, "put", tmp_path)
    line.back_after = 20 * 2**20
    with pytest.raises(StorageUnavailable, match="does not answer"), store.local(NAME):
        pass
    assert line.is_cut
    assert local_files(tmp_path) == set()
    line.mend()
    with store.local(NAME) as path:
        assert path.read_bytes() == LARGE


def test_reading_that_is_cut_off_is_an_error_and_no_short_file(line: Line, tmp_path: Path) -> None:
    store = opened(tmp_path)
    upload(store, "put", tmp_path)
    line.back_after = 20 * 2**20
    with pytest.raises(StorageUnavailable):
        store.read(NAME)


def test_an_upload_is_a_copy_already_so_that_a_worker_beside_needs_no_download(line: Line, tmp_path: Path) -> None:
    upload(opened(tmp_path), "writer", tmp_path)
    line.cut()
    with opened(tmp_path).local(NAME) as path:
        assert path.read_bytes() == LARGE


def test_tls_is_spoken_and_the_certificate_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    with s3_server(folder, ssl=True) as server:
        server.new_bucket()
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert server.url.startswith("https://")
        with pytest.raises(StorageUnavailable) as refused:
            opened(tmp_path).check()
        assert "certificate verify failed" in str(refused.value.__cause__)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(server.ca))
        assert opened(tmp_path).put(b"content").sha256 == CONTENT
        assert server.objects() == [f"files/{CONTENT}"]


def test_location_of_objects(s3: S3Server, tmp_path: Path) -> None:
    store = opened(tmp_path, f"s3://{BUCKET}/a/b/")
    assert store.location == S3Location(BUCKET, "a/b")  # type: ignore[attr-defined]
    store.put(b"content")
    assert s3.objects() == [f"a/b/{CONTENT}"]
