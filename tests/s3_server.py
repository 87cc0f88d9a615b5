"""An S3 server for tests: moto's, a process of its own that is spoken to over HTTP(S) like any other."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

BUCKET = "quantsieve-test"
START_SECONDS = 60.0


@dataclass(frozen=True)
class S3Server:
    """A running server. ``environment`` is what an operator would set."""

    port: int
    scheme: str = "http"
    ca: Path | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        return environment(self.url)

    def new_bucket(self, name: str = BUCKET) -> None:
        """The bucket, empty, and nothing else."""
        httpx.post(f"{self.url}/moto-api/reset", verify=False).raise_for_status()
        client(self.url).create_bucket(Bucket=name)

    def objects(self, bucket: str = BUCKET) -> list[str]:
        """The keys in the bucket."""
        return [each["Key"] for each in client(self.url).list_objects_v2(Bucket=bucket).get("Contents", ())]

    def unfinished(self, bucket: str = BUCKET) -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        return [each["Key"] for each in client(self.url).list_multipart_uploads(Bucket=bucket).get("Uploads", ())]

    @contextmanager
    def checking_credentials(self) -> Iterator[dict[str, str]]:
        """The server checks who asks as long as the block lasts; the credentials of one who may do anything in S3."""
        import boto3

        iam = boto3.client("iam", endpoint_url=self.url, **_credentials())
        iam.create_user(UserName="quantsieve")
        policy = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}'
        iam.put_user_policy(UserName="quantsieve", PolicyName="files", PolicyDocument=policy)
        key = iam.create_access_key(UserName="quantsieve")["AccessKey"]
        self._check_after("0")
        try:
            yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        finally:
            self._check_after("inf")

    def _check_after(self, actions: str) -> None:
        httpx.post(f"{self.url}/moto-api/reset-auth", content=actions).raise_for_status()


def environment(url: str) -> dict[str, str]:
    """What an operator sets to use the S3 server at this URL; only one try, so that failures are fast."""
    return {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@cache
def client(url: str) -> Any:
    """The test's own look into the server."""
    import boto3

    return boto3.client("s3", endpoint_url=url, verify=False, **_credentials())


def _credentials() -> dict[str, str]:
    return {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}


@contextmanager
def s3_server(folder: Path, *, ssl: bool = False) -> Iterator[S3Server]:
    """A server on a free port of the loopback address, with a certificate of its own if ``ssl``."""
    for package in ("boto3", "moto", "flask_cors"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'quantsieve[dev]'")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    ca, arguments = None, []
    if ssl:
        ca, key = make_certificate(folder)
        arguments = ["--ssl-cert", str(ca), "--ssl-key", str(key)]
    server = S3Server(port, "https" if ssl else "http", ca)
    log = folder / "s3.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_for(server, process, log)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait_for(server: S3Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx.get(f"{server.url}/moto-api/data.json", verify=False)
            return
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that is its own authority, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    where = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *where], check=True, capture_output=True)
    return certificate, key
