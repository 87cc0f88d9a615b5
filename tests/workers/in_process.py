"""A sandbox that is none: what is opened lives in this process, so that a test can put parts of its own there."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workers import context
from workers.sandbox.confined import Parts
from workers.sandbox.sandbox import sandbox
from workers.sandbox.serving import Reply, Served
from workers.sandbox.wire import Array, Message
from workers.sandboxed import OPENINGS


@contextlib.contextmanager
def unconfined(folder: Path) -> Iterator[None]:
    """What sandboxes do happens in this process, so that its clock sees it; they write their files to ``folder``."""
    confined = context.sandbox
    # one for each policy: what a worker keeps open from unit to unit, it keeps by the sandbox that it asked
    context.sandbox = functools.cache(lambda policy: InProcess(policy, tuple(OPENINGS)))  # type: ignore[assignment]
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        context.sandbox = confined


class InProcess:
    """Opens files as a sandbox does. ``kinds``: those that are opened here, the others in a real one."""

    def __init__(self, policy: Any, kinds: Sequence[str]) -> None:
        self.policy, self._kinds = policy, kinds

    def open(self, kind: str, files: Sequence[Path], document: Any = None, arrays: Any = None, **options: Any) -> Any:
        if kind not in self._kinds:
            return sandbox(self.policy).open(kind, files, document, arrays or {}, **options)
        return _Opened(OPENINGS[kind].opener(files, _message("open", Reply(document, arrays or {}))))

    def run(self, kind: str, files: Sequence[Path], *given: Any, read: Callable[[Message], Any]) -> Any:
        return read(self.open(kind, files, *given).first)


class _Opened:
    alive = True

    def __init__(self, served: Served) -> None:
        self._served = served
        self.first = _message("item", served.opened())

    def end(self) -> str:
        return ""

    def checked(self, read: Callable[[], Any]) -> Any:
        return read()

    def one(self, kind: str, document: Any = None, arrays: Mapping[str, Array] | None = None) -> Message:
        (answer,) = self.stream(kind, document, arrays or {})
        return answer

    def stream(
        self, kind: str, document: Any = None, arrays: Mapping[str, Array] | None = None, parts: Parts | None = None
    ) -> Iterator[Message]:
        def fetch() -> Message | None:
            part = next(parts, None) if parts is not None else None
            return None if part is None else _message("part", Reply(*part))

        for reply in self._served.answers(_message(kind, Reply(document, arrays or {})), fetch):
            yield _message("item", reply)


def _message(kind: str, reply: Reply) -> Message:
    return Message(kind, json.loads(json.dumps(reply.document)), dict(reply.arrays))
