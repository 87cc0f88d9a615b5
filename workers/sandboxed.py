"""The entry of the template: ``python -m workers.sandboxed <descriptor> <policy>``. All that a sandbox can open.

It loads the runtimes before it makes the first sandbox, so that each of these is a fork and starts at once.
"""

import importlib
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from workers.sandbox.evaluation_set import served_set
from workers.sandbox.model import served_model
from workers.sandbox.nothing import served_nothing
from workers.sandbox.serving import Opener, serve
from workers.sandbox.template import POLICY, run_template
from workers.sandbox.wire import Channel

OPENERS: Mapping[str, Opener] = {"nothing": served_nothing, "model": served_model, "set": served_set}
WARM = (
    *("torch", "onnx", "onnx.inliner", "onnxruntime", "pyarrow.parquet", "PIL.Image", "PIL.JpegImagePlugin"),
    *("PIL.PngImagePlugin", "PIL.WebPImagePlugin", "PIL.BmpImagePlugin", "workers.backends.torch_session"),
    *("workers.backends.torch_probe", "workers.backends.torch_cuda_graph", "workers.models.torch_export"),
    *("workers.backends.onnx_probe", "workers.models.onnx_graph", "workers.models.onnx_layers"),
    *("workers.models.onnx_cuts", "workers.models.onnx_dataflow", "workers.models.onnx_output_errors"),
)


def main(arguments: Sequence[str]) -> None:
    """Make sandboxes until the worker is gone."""
    for name in WARM:
        with suppress(ImportError, OSError):  # a backend whose packages are not here is told of elsewhere
            importlib.import_module(name)
    with socket.socket(fileno=int(arguments[0])) as control:
        run_template(control, POLICY.validate_json(arguments[1]), _serve)


def _serve(channel: Channel, kind: str, files: Sequence[Path]) -> None:
    serve(channel, OPENERS[kind], files)


if __name__ == "__main__":
    main(sys.argv[1:])
