"""Takes a streamed body into the blob store. Whatever goes wrong on the way, nothing of it is left."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from service.api.deps import ProjectServices
from service.api.problems import BadRequest, TooLarge
from service.domain.errors import RejectedFile
from service.domain.no_space import no_space_told
from service.store import quotas
from service.store.blobs import Blob, BlobWriter

PIECE_BYTES = 2**20
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@asynccontextmanager
async def receive(request: Request, services: ProjectServices, *, limit: int) -> AsyncIterator[BlobWriter]:
    """The whole body, written but not yet visible; raises TooLarge beyond ``limit`` bytes, QuotaExceeded, NoSpace."""
    _check_headers(request, limit)
    with no_space_told(), services.blobs.writer() as writer:
        await _copy(request, writer, limit)
        if writer.size == 0:
            raise RejectedFile("the body is empty; send the file itself as the body")
        # before it is kept: what is refused must not fill the disk until somebody tidies
        await run_in_threadpool(_check_quota, services, writer.blob)
        yield writer


async def _copy(request: Request, writer: BlobWriter, limit: int) -> None:
    piece = bytearray()
    async for chunk in request.stream():
        if writer.size + len(piece) + len(chunk) > limit:
            raise _too_large(limit)
        piece += chunk
        if len(piece) >= PIECE_BYTES:
            await run_in_threadpool(writer.write, bytes(piece))
            piece.clear()
    await run_in_threadpool(writer.write, bytes(piece))


def _check_quota(services: ProjectServices, blob: Blob) -> None:
    with services.database.read() as session:
        quotas.check_upload(session, blob)


def _check_headers(request: Request, limit: int) -> None:
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise RejectedFile(
            "the body is a form; send the file itself as the body, for example with curl --upload-file FILE",
            code="form-upload",
        )
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise RejectedFile(f"the body is encoded as {encoding!r}; send it as it is", code="encoded-upload")
    length = request.headers.get("content-length")
    if length is None:
        return
    if not length.isascii() or not length.isdigit():
        raise BadRequest(f"Content-Length {length!r} is not a number", code="bad-content-length")
    if int(length) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than the {limit} bytes that this service takes")
