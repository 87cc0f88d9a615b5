"""Files that workers made, as they are listed and sent."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from fastapi.responses import Response
from pydantic import BaseModel

from service.api.deps import ProjectServices
from service.api.streamed import AskedPart, streamed
from service.store.blobs import Blob
from service.store.tables import ArtifactRow, ConversionFileRow

# layer names are text of strangers: what comes of them runs in a sandbox of its own, without network
SANDBOX: Mapping[str, str] = {
    "Content-Security-Policy": (
        "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; frame-ancestors 'none'"
    )
}


class ArtifactView(BaseModel):
    """A file to download."""

    name: str
    media_type: str
    size: int
    sha256: str
    link: str


def listed(rows: Iterable[ArtifactRow | ConversionFileRow], folder: str) -> list[ArtifactView]:
    """The files as they are listed; ``folder``: the path that their links begin with."""
    return [
        ArtifactView(
            name=row.name, media_type=row.media_type, size=row.size, sha256=row.sha256, link=f"{folder}/{row.name}"
        )
        for row in rows
    ]


def sent(
    services: ProjectServices, row: ArtifactRow | ConversionFileRow, part: AskedPart, *, download: bool = False
) -> Response:
    """The file as a response; ``download``: to be kept under its name rather than shown."""
    headers = {"Cache-Control": "no-cache"}
    if row.media_type.startswith("text/html"):
        headers.update(SANDBOX)
    if download:
        headers["Content-Disposition"] = _attachment(row.name)
    return streamed(services.blobs, Blob(row.sha256, row.size), part, media_type=row.media_type, headers=headers)


def _attachment(name: str) -> str:
    quoted = quote(name, safe="")
    return f'attachment; filename="{name}"' if quoted == name else f"attachment; filename*=utf-8''{quoted}"
