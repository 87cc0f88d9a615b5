"""What exports need to know of an uploaded file's own names, found in a sandbox."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from workers.exports.onnx_nodes import own_names
from workers.exports.torch_to_onnx import Exported, NotExported, exported_layers
from workers.sandbox.sandbox import Sandbox
from workers.sandbox.serving import Reply
from workers.sandbox.wire import Message

OWN, EXPORTED = "own-names", "exported-layers"
REMEMBERED = 16  # models whose export is not repeated for their next sweep; a file in the store never changes
NAMES = TypeAdapter(list[str])
LAYERS = TypeAdapter(Exported | NotExported)


def served_own_names(files: Sequence[Path], asked: Message) -> Reply:
    """The inner side of ``sandboxed_own_names``."""
    return Reply(sorted(own_names(files[0])))


def served_exported_layers(files: Sequence[Path], asked: Message) -> Reply:
    """The inner side of ``sandboxed_exported_layers``."""
    return Reply(LAYERS.dump_python(exported_layers(files[0]), mode="json"))


def sandboxed_own_names(sandbox: Sandbox, path: Path) -> frozenset[str]:
    """As ``own_names``."""
    return frozenset(sandbox.run(OWN, [path], read=lambda answer: NAMES.validate_python(answer.document)))


@lru_cache(maxsize=REMEMBERED)
def sandboxed_exported_layers(sandbox: Sandbox, archive: Path) -> Exported | NotExported:
    """As ``exported_layers``: remembered, since a file in the store never changes."""
    return sandbox.run(EXPORTED, [archive], read=lambda answer: LAYERS.validate_python(answer.document))
