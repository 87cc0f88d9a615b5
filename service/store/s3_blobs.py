"""Files as objects of an S3 bucket, of Amazon's or of any server that speaks its protocol.

Endpoint, region, credentials and certificates come from where Amazon's own tools take them: AWS_ENDPOINT_URL_S3,
AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_CA_BUNDLE and so on.
https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
"""

import hashlib
import io
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from service.domain.errors import InvalidInput, first_line
from service.domain.storage import S3Location
from service.store.blob_cache import BlobCache
from service.store.blob_writer import BlobWriter, discard_old
from service.store.blobs import Blob, BlobStore, Readable, Span, checked_name, is_name, no_such_file
from service.store.s3_errors import told

PART_BYTES = 16 * 2**20
"""Larger files go up and down in parts, several at once; the client enlarges them where 10,000 were not enough."""
CONNECT_SECONDS, READ_SECONDS = 5, 60
CHECK_SECONDS = 3


class S3BlobStore(BlobStore):
    """Objects named by their SHA-256 under a prefix of a bucket; others in the bucket are never touched.

    What is uploaded is first written to ``cache``'s disk, so that nothing reaches the bucket before it was inspected.
    """

    def __init__(self, location: S3Location, cache: BlobCache) -> None:
        self.location = location
        self.cache = cache
        self.incoming = cache.folder / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)
        self._client, self._asking = _clients(
            Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS),
            Config(connect_timeout=CHECK_SECONDS, read_timeout=CHECK_SECONDS, retries={"total_max_attempts": 1}),
        )
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        self._parts = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return str(self._client.meta.endpoint_url)

    def __str__(self) -> str:
        return f"{self.location} at {self.endpoint}"

    def writer(self) -> BlobWriter:
        """Begin a new file; use it in a ``with`` block."""
        return BlobWriter(self.incoming, self._keep)

    def _keep(self, path: Path, blob: Blob) -> None:
        with path.open("rb") as file:
            self._upload(file, blob.sha256)
        self.cache.adopt(path, blob)

    def put(self, content: bytes) -> Blob:
        """Store bytes, which need no inspection."""
        blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
        self._upload(io.BytesIO(content), blob.sha256)
        return blob

    def put_file(self, path: Path) -> Blob:
        """Store a file's content, which needs no inspection."""
        with path.open("rb") as file:
            blob = Blob(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
            file.seek(0)
            self._upload(file, blob.sha256)
        return blob

    def _upload(self, file: BinaryIO, sha256: str) -> None:
        with told():  # a part that cannot be sent aborts the others; what a killed process began, discard_unfinished
            self._client.upload_fileobj(file, **self._object(sha256), Config=self._parts)

    def open(self, sha256: str, span: Span | None = None) -> Readable:
        """The file's content, or a part, as it comes over the network."""
        part = {} if span is None else {"Range": f"bytes={span.start}-{span.stop - 1}"}
        with told(sha256):
            return _Body(self._client.get_object(**self._object(sha256), **part)["Body"])

    def local(self, sha256: str) -> AbstractContextManager[Path]:
        """A copy in the cache, downloaded where there is none."""

        def fetch(file: BinaryIO) -> None:
            with told(sha256):
                self._client.download_fileobj(**self._object(sha256), Fileobj=file, Config=self._parts)

        return self.cache.hold(checked_name(sha256), self._size, fetch)

    def _size(self, sha256: str) -> int:
        found = self._head(sha256)
        if found is None:
            raise no_such_file(sha256)
        return int(found["ContentLength"])

    def _head(self, sha256: str) -> dict[str, Any] | None:
        with told(sha256):
            try:
                found: dict[str, Any] = self._client.head_object(**self._object(sha256))
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
                # the answer to HEAD has no body that would say whether the file or the whole bucket is missing
                self._list_one(self._client)
                return None
        return found

    def written_before(self, deadline: float) -> list[str]:
        """The files last stored before this time."""
        with told():
            pages = self._client.get_paginator("list_objects_v2").paginate(**self._under_prefix())
            objects = [each for page in pages for each in page.get("Contents", ())]
        names = ((self._name(each["Key"]), each["LastModified"].timestamp()) for each in objects)
        return [name for name, modified in names if name is not None and modified < deadline]

    def delete(self, sha256: str, *, written_before: float | None = None) -> bool:
        """Remove the object, and this machine's copy."""
        found = self._head(sha256)
        if found is None:
            self.cache.drop(sha256)
            return False
        if written_before is not None and found["LastModified"].timestamp() >= written_before:
            return False
        with told():
            self._client.delete_object(**self._object(sha256))
        self.cache.drop(sha256)
        return True

    def discard_unfinished(self, deadline: float) -> int:
        """Abort multipart uploads, and remove this machine's half-written files."""
        with told():
            pages = self._client.get_paginator("list_multipart_uploads").paginate(**self._under_prefix())
            uploads = [each for page in pages for each in page.get("Uploads", ())]
            begun = [each for each in uploads if self._name(each["Key"]) and self._last_part(each) < deadline]
            for each in begun:
                self._client.abort_multipart_upload(**self._upload_of(each))
        return len(begun) + discard_old(self.incoming, deadline)

    def _last_part(self, upload: dict[str, Any]) -> float:
        pages = self._client.get_paginator("list_parts").paginate(**self._upload_of(upload))
        parts = [each["LastModified"] for page in pages for each in page.get("Parts", ())]
        return float(max([upload["Initiated"], *parts]).timestamp())

    def check(self) -> None:
        """Whether the bucket is there and shows what it holds; one request, one try."""
        with told():
            self._list_one(self._asking)

    def _list_one(self, client: Any) -> None:
        client.list_objects_v2(**self._under_prefix(), MaxKeys=1)

    def _object(self, sha256: str) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Key": self._prefix + checked_name(sha256)}

    def _upload_of(self, upload: dict[str, Any]) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}

    def _under_prefix(self) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Prefix": self._prefix}

    def _name(self, key: str) -> str | None:
        """The SHA-256 of an object of ours; None for another."""
        name = key.removeprefix(self._prefix)
        return name if is_name(name) else None


def _clients(*configs: Config) -> list[Any]:
    """Clients, which all threads may use; raises InvalidInput where the environment's settings are wrong."""
    try:
        session = boto3.session.Session()
        return [session.client("s3", config=each) for each in configs]
    except (BotoCoreError, ValueError) as error:
        raise InvalidInput(f"the environment's settings for S3: {first_line(error)}", field="blob_url") from error


@dataclass
class _Body:
    """An object's content as it comes in."""

    stream: Any

    def read(self, size: int = -1, /) -> bytes:
        with told():
            content: bytes = self.stream.read(None if size < 0 else size)
        return content

    def close(self) -> None:
        self.stream.close()
