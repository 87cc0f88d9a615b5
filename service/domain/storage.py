"""Where an installation keeps its files: a folder, or a place in an S3 bucket."""

import re
from dataclasses import dataclass
from pathlib import Path

RIGHT = "give a folder such as /var/lib/quantsieve/blobs, or s3://bucket/prefix"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[\w!*'().-]+(/[\w!*'().-]+)*", re.ASCII)


@dataclass(frozen=True)
class S3Location:
    """A bucket, and what the names of our objects in it begin with (``""``: nothing), without the last slash."""

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


Storage = Path | S3Location


def parse_storage(text: str) -> Storage:
    """A folder or ``s3://bucket/prefix``; raises ValueError that says what would be right."""
    url = _SCHEME.fullmatch(text)
    if url is None:
        if not text.strip():
            raise ValueError(f"it is empty; {RIGHT}")
        return Path(text).expanduser()
    scheme, rest = url.groups()
    if scheme.lower() != "s3":
        raise ValueError(f"{scheme}:// is not known; {RIGHT}")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{bucket!r} is not a bucket's name; {RIGHT}")
    if prefix and not _PREFIX.fullmatch(prefix):
        raise ValueError(f"the prefix {prefix!r} may hold letters, digits and !-_.*'() between slashes; {RIGHT}")
    return S3Location(bucket, prefix)
