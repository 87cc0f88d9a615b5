"""What the first bytes of a file say that it is, for kinds that no upload may be."""

import re
from pathlib import Path

from service.domain.errors import RejectedFile

HEAD_BYTES = 4096
ZIP_START = (b"PK\x03\x04", b"PK\x05\x06")
_HTML = re.compile(rb"^(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body|\?xml)", re.IGNORECASE)
_PICKLE = re.compile(rb"^\x80[\x02-\x05]")


def read_head(path: Path) -> bytes:
    """The first bytes of a file; raises RejectedFile for an empty one, a web page, or a Git LFS pointer."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise RejectedFile("the file is empty; send the file itself as the body", code="empty-file")
    if _HTML.match(head):
        raise RejectedFile(
            "the file is a web page (HTML or XML), perhaps what a download link shows when it asks for a login; "
            "send the file itself",
            code="web-page",
        )
    if head.startswith(b"version https://git-lfs"):
        raise RejectedFile(
            "the file is a Git LFS pointer, not the file that it stands for; run `git lfs pull` and send the real one",
            code="lfs-pointer",
        )
    return head


def is_zip(head: bytes) -> bool:
    """Whether the file starts as a zip does."""
    return head.startswith(ZIP_START)


def is_pickle(head: bytes) -> bool:
    """Whether the file starts as a Python pickle of protocol 2 or newer does."""
    return _PICKLE.match(head) is not None


def starts_like_safetensors(head: bytes) -> bool:
    """Whether the file starts as a safetensors file does: the header's length, then JSON."""
    return head[6:9] == b"\0\0{"  # no length needs its two highest bytes
