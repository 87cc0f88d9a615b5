"""Which store the settings mean."""

import sys
from pathlib import Path

import pytest

from service.domain.errors import InvalidInput
from service.settings import Settings
from service.store.folder_blobs import FolderBlobStore
from service.store.open_blobs import open_blobs
from tests.s3_server import S3Server


def test_without_a_url_files_lie_in_the_data_folder(tmp_path: Path) -> None:
    store = open_blobs(Settings(data_dir=tmp_path, blob_url=None))
    assert isinstance(store, FolderBlobStore)
    assert store.folder == tmp_path / "blobs"


def test_a_folder_may_be_named(tmp_path: Path) -> None:
    store = open_blobs(Settings(data_dir=tmp_path, blob_url=str(tmp_path / "elsewhere")))
    assert isinstance(store, FolderBlobStore)
    assert store.folder == tmp_path / "elsewhere"


def test_a_bucket_is_opened_with_a_bounded_cache(s3: S3Server, tmp_path: Path) -> None:
    from service.store.s3_blobs import S3BlobStore

    settings = Settings(data_dir=tmp_path, blob_url="s3://bucket/a", blob_cache_bytes=1234)
    store = open_blobs(settings)
    assert isinstance(store, S3BlobStore)
    assert (str(store.location), store.endpoint) == ("s3://bucket/a", s3.url)
    assert (store.cache.folder, store.cache.limit) == (tmp_path / "blob-cache", 1234)


def test_a_bucket_without_its_client_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    for name in ("service.store.s3_blobs", "service.store.s3_errors"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(InvalidInput, match=r"blob_url: s3://bucket needs the package boto3: pip install"):
        open_blobs(Settings(data_dir=tmp_path, blob_url="s3://bucket"))
