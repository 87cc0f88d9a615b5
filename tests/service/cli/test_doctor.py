"""What the doctor finds of the place where files are kept."""

from pathlib import Path

from service.cli.doctor import _files
from service.settings import Settings
from tests.s3_server import BUCKET, S3Server


def test_a_file_is_stored_read_and_deleted_in_the_bucket(s3: S3Server, tmp_path: Path) -> None:
    part, good, found = _files(Settings(data_dir=tmp_path, blob_url=f"s3://{BUCKET}/files"))
    assert (part, good) == ("files", True)
    assert found.startswith(f"s3://{BUCKET}/files at {s3.url} · a file was stored, read and deleted · copies in ")
    assert s3.objects() == []


def test_it_says_why_files_cannot_be_stored_with_the_servers_own_words(s3: S3Server, tmp_path: Path) -> None:
    _, good, found = _files(Settings(data_dir=tmp_path, blob_url="s3://no-such-bucket"))
    assert not good
    assert found.startswith("s3://no-such-bucket: the bucket of the files does not exist: ")
    assert "NoSuchBucket" in found


def test_a_folder_is_only_looked_at(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, blob_url=None)
    assert _files(settings) == ("files", True, f"in {tmp_path / 'blobs'}, made at the first start")
    assert not (tmp_path / "blobs").exists()
