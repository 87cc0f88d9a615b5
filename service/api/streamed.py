"""A stored file as a response, streamed from wherever it is kept, whole or in part."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.problems import documented, problem_response
from service.store.blobs import Blob, BlobStore, Readable, Span

PIECE_BYTES = 2**18
_RANGE = re.compile(r"bytes=(?:([0-9]+)-([0-9]*)|-([0-9]+))")

RangeHeader = Annotated[str | None, Header(description="`bytes=FIRST-LAST`: to go on where a download broke off.")]
IfRange = Annotated[str | None, Header(description="The ETag of what is there already; another file is sent whole.")]
_CONTENT = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
FILE = {
    200: {"description": "The file", **_CONTENT},
    206: {"description": "The part of the file that was asked for", **_CONTENT},
    **documented(404, 409, 416, 503),
}
"""The ``responses`` of an endpoint that sends a file."""


@dataclass(frozen=True)
class AskedPart:
    """What a request says of the part that it wants."""

    range: str | None = None
    if_range: str | None = None


def _asked_part(range: RangeHeader = None, if_range: IfRange = None) -> AskedPart:
    return AskedPart(range, if_range)


Part = Annotated[AskedPart, Depends(_asked_part)]


class Unsatisfiable(Exception):
    """The range begins behind the end of the file."""


class _Streamed(StreamingResponse):
    """What is read from an open file, which is closed whatever happens."""

    def __init__(self, file: Readable, *, status_code: int, headers: Mapping[str, str], media_type: str) -> None:
        super().__init__(_pieces(file), status_code=status_code, headers=headers, media_type=media_type)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


async def _pieces(file: Readable) -> AsyncIterator[bytes]:
    while piece := await run_in_threadpool(file.read, PIECE_BYTES):
        yield piece


def streamed(blobs: BlobStore, blob: Blob, part: AskedPart, *, media_type: str, headers: Mapping[str, str]) -> Response:
    """The file or the part of it as a response; raises StorageUnavailable before anything is sent."""
    tag = f'"{blob.sha256}"'
    sent = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Length": str(blob.size), **headers}
    try:
        span = requested_span(part.range, blob.size) if part.if_range in (None, tag) else None
    except Unsatisfiable:
        detail = f"Range: {part.range} begins behind the end of the file, which has {blob.size} bytes"
        nothing = {"Content-Range": f"bytes */{blob.size}"}
        return problem_response(416, "range-not-satisfiable", detail, headers=nothing)
    if span is not None:
        sent["Content-Length"] = str(span.stop - span.start)
        sent["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{blob.size}"
    file = blobs.open(blob.sha256, span)
    return _Streamed(file, status_code=200 if span is None else 206, headers=sent, media_type=media_type)


def requested_span(header: str | None, size: int) -> Span | None:
    """The part that a Range header asks for; None: the whole file of ``size`` bytes. Raises Unsatisfiable.

    As RFC 9110 allows, a header that is no range of bytes counts for nothing, and so does more than one range.
    """
    match = _RANGE.fullmatch(header.replace(" ", "")) if header is not None else None
    if match is None:
        return None
    first, last, final = match.groups()
    start = max(0, size - int(final)) if first is None else int(first)
    stop = min(size, int(last) + 1) if last else size
    if last and int(last) < start:
        return None
    if start >= size or final == "0":
        raise Unsatisfiable
    return Span(start, stop)
