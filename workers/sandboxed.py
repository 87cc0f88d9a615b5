"""The entry of the template: ``python -m workers.sandboxed <descriptor> <policy>``. All that a sandbox can open.

It loads a runtime before it makes the first sandbox that wants it, so that each of these is a fork and starts at once.
"""

import importlib
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workers.sandbox import conversion, graph, names
from workers.sandbox.evaluation_set import served_set
from workers.sandbox.model import served_model
from workers.sandbox.nothing import served_nothing
from workers.sandbox.results import once
from workers.sandbox.serving import Opener, serve
from workers.sandbox.template import POLICY, run_template
from workers.sandbox.wire import Channel
from workers.sweep import latency

IMAGES = ("PIL.Image", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.WebPImagePlugin", "PIL.BmpImagePlugin")
ONNX = (
    *("onnx", "onnx.inliner", "onnxruntime", "workers.models.onnx_graph", "workers.models.onnx_layers"),
    *("workers.models.onnx_cuts", "workers.models.onnx_dataflow", "workers.models.onnx_output_errors"),
    "workers.backends.onnx_probe",
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
    """What opens a kind of thing, and the modules that it will want: loaded once, before the first of its kind."""

    opener: Opener
    modules: tuple[str, ...] = ()


OPENINGS: Mapping[str, Opening] = {
    "nothing": Opening(served_nothing),
    "set": Opening(served_set, ("numpy", "pyarrow.parquet", *IMAGES)),
    "onnxruntime": Opening(served_model, ONNX),
    "tensorrt": Opening(served_model, (*ONNX, "tensorrt")),
    "torch": Opening(served_model, TORCH),
    graph.KIND: Opening(graph.served_graph, ONNX),
    latency.KIND: Opening(once(latency.served_latency), ONNX),
    names.OWN: Opening(once(names.served_own_names), ONNX),
    names.EXPORTED: Opening(once(names.served_exported_layers), (*TORCH, *EXPORT)),
    conversion.TO_QDQ: Opening(once(conversion.served_to_qdq), ONNX),
    conversion.TO_CACHE: Opening(once(conversion.served_to_cache), ONNX),
    conversion.PAIRS: Opening(once(conversion.served_pairs), ONNX),
}


def main(arguments: Sequence[str]) -> None:
    """Make sandboxes until the worker is gone."""
    with socket.socket(fileno=int(arguments[0])) as control:
        run_template(control, POLICY.validate_json(arguments[1]), _load, _serve)


def _load(kind: str) -> None:
    for name in OPENINGS[kind].modules:
        if name not in sys.modules:
            with suppress(ImportError, OSError):  # the file's opener will say that it is missing
                importlib.import_module(name)


def _serve(channel: Channel, kind: str, files: Sequence[Path]) -> None:
    serve(channel, OPENINGS[kind].opener, files)


if __name__ == "__main__":
    main(sys.argv[1:])
