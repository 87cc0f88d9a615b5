"""The one text that says where files are kept."""

from pathlib import Path

import pytest

from service.domain.storage import S3Location, parse_storage


@pytest.mark.parametrize(
    ("text", "storage"),
    [
        ("/var/lib/quantsieve", Path("/var/lib/quantsieve")),
        ("files", Path("files")),
        ("~/files", Path.home() / "files"),
        ("s3://bucket", S3Location("bucket")),
        ("s3://bucket/", S3Location("bucket")),
        ("S3://my.bucket-1/a/b_c/", S3Location("my.bucket-1", "a/b_c")),
    ],
)
def test_a_folder_or_a_place_in_a_bucket(text: str, storage: Path | S3Location) -> None:
    assert parse_storage(text) == storage


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "it is empty"),
        (" ", "it is empty"),
        ("gs://bucket", "gs:// is not known"),
        ("https://s3.example/bucket", "https:// is not known"),
        ("s3://", "'' is not a bucket's name"),
        ("s3://Bucket", "'Bucket' is not a bucket's name"),
        ("s3://key:secret@bucket", "'key:secret@bucket' is not a bucket's name"),
        ("s3://bucket/a//b", "the prefix 'a//b' may hold"),
        ("s3://bucket/a b", "the prefix 'a b' may hold"),
        ("s3://bucket/a?x=1", "the prefix 'a?x=1' may hold"),
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=r"give a folder such as .*, or s3://bucket/prefix") as refused:
        parse_storage(text)
    assert str(refused.value).startswith(wrong)


@pytest.mark.parametrize("location", [S3Location("bucket"), S3Location("bucket", "a/b")])
def test_a_location_is_written_as_it_is_read(location: S3Location) -> None:
    assert parse_storage(str(location)) == location
