"""A torch.export archive that runs code when it is loaded, and what that code tries."""

import io
import pickle
import zipfile
from pathlib import Path

from tests.service.api.files import zip_bytes

GOOD = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.pt2"
SAMPLES = "digits/data/sample_inputs/model.pt"

RAN = 64
"""The status with which the attack ends its process; what it reached is added as bits, so that 64 is nothing."""

ATTACK = """
import os, socket
def reached(what):
    try:
        return bool(what())
    except Exception:
        return False
tries = [
    lambda: socket.create_connection(("127.0.0.1", {port}), 3),
    lambda: open({secret!r}).read(),
    lambda: open({target!r}, "w").write("x"),
    lambda: os.listdir({data!r}),
    lambda: os.posix_spawn("/bin/true", ["true"], {{}}),
    lambda: [name for name in os.environ if "QUANTSIEVE" in name],
]
os._exit({ran} + sum(reached(each) << index for index, each in enumerate(tries)))
"""


class _Runs:
    """Unpickled, it runs its code."""

    def __init__(self, code: str) -> None:
        self._code = code

    def __reduce__(self) -> object:
        return exec, (self._code, {"__name__": "attack"})


def attacking_pt2(*, port: int, secret: Path, target: Path, data: Path) -> bytes:
    code = ATTACK.format(ran=RAN, port=port, secret=str(secret), target=str(target), data=str(data))
    return with_samples(zip_bytes({"archive/data.pkl": pickle.dumps(_Runs(code), 2), "archive/version": b"3\n"}))


def with_samples(content: bytes) -> bytes:
    """The digits network with these bytes where its sample inputs are."""
    out = io.BytesIO()
    with zipfile.ZipFile(GOOD) as source, zipfile.ZipFile(out, "w") as made:
        for entry in source.infolist():
            made.writestr(entry, content if entry.filename == SAMPLES else source.read(entry))
    return out.getvalue()
