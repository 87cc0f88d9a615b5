"""The entry of the template: ``python -m workers.sandboxed <descriptor> <policy>``. All that a sandbox can open.

It loads a runtime, and the code that uses it, before it makes the first sandbox that wants it, so that each of these is
a fork and starts at once.
"""

import importlib
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workers.sandbox.serving import Opener, serve
from workers.sandbox.template import POLICY, run_template
from workers.sandbox.wire import Channel

IMAGES = ("PIL.Image", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.WebPImagePlugin", "PIL.BmpImagePlugin")
ONNX = (
    *("onnx", "onnx.inliner", "onnxruntime", "workers.models.onnx_graph", "workers.models.onnx_layers"),
    *("workers.models.onnx_cuts", "workers.models.onnx_dataflow", "workers.models.onnx_output_errors"),
)
TORCH = (
    *("workers.models.torch_export", "workers.backends.torch_session", "workers.backends.torch_probe"),
    *("workers.backends.torch_cuda_graph", "torch.export.pt2_archive._package", "torch._export.serde.serialize"),
    *("torch.export._trace", "torch._inductor.decomposition", "torch._inductor.sizevars", "sympy.tensor.tensor"),
    *("torch.fx.experimental.validator", "torch.utils.serialization"),
)

EXPORT = ("onnxscript", "torch.onnx", "torch.onnx._internal.exporter._core")


@dataclass(frozen=True)
class Opening:
    """What opens a kind of thing, as ``module:name``, and the modules that it will want.

    All are loaded once, before the first of its kind. ``once``: what it makes of the files is its only answer.
    """

    name: str
    modules: tuple[str, ...] = ()
    once: bool = False

    @property
    def opener(self) -> Opener:
        """Loads the code."""
        module, _, name = self.name.partition(":")
        found = getattr(importlib.import_module(module), name)
        if self.once:
            return importlib.import_module("workers.sandbox.results").once(found)  # type: ignore[no-any-return]
        return found  # type: ignore[no-any-return]


MODEL = "workers.sandbox.model:served_model"
OPENINGS: Mapping[str, Opening] = {
    "nothing": Opening("workers.sandbox.nothing:nothing", once=True),
    "set": Opening("workers.sandbox.evaluation_set:served_set", ("numpy", "pyarrow.parquet", *IMAGES)),
    "onnxruntime": Opening(MODEL, ONNX),
    "tensorrt": Opening(MODEL, (*ONNX, "tensorrt")),
    "torch": Opening(MODEL, TORCH),
    "mixed-graph": Opening("workers.sandbox.graph:served_graph", ONNX),
    "latency": Opening("workers.sweep.latency:served_latency", ONNX, once=True),
    "own-names": Opening("workers.sandbox.names:served_own_names", ONNX, once=True),
    "exported-layers": Opening("workers.sandbox.names:served_exported_layers", (*TORCH, *EXPORT), once=True),
    "to-qdq": Opening("workers.sandbox.conversion:served_to_qdq", ONNX, once=True),
    "to-cache": Opening("workers.sandbox.conversion:served_to_cache", ONNX, once=True),
    "pairs": Opening("workers.sandbox.conversion:served_pairs", ONNX, once=True),
}


def main(arguments: Sequence[str]) -> None:
    """Make sandboxes until the worker is gone."""
    with socket.socket(fileno=int(arguments[0])) as control:
        run_template(control, POLICY.validate_json(arguments[1]), _load, _serve)


def _load(kind: str) -> None:
    _ = OPENINGS[kind].opener
    for name in OPENINGS[kind].modules:
        if name not in sys.modules:
            with suppress(ImportError, OSError):  # the file's opener will say that it is missing
                importlib.import_module(name)


def _serve(channel: Channel, kind: str, files: Sequence[Path]) -> None:
    serve(channel, OPENINGS[kind].opener, files)


if __name__ == "__main__":
    main(sys.argv[1:])
