"""The layers of the ONNX model that torch.onnx.export makes of a torch.export archive, under the names it gives."""

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from service.domain.errors import first_line
from service.domain.layers import Layer
from workers.models.onnx_graph import read_onnx
from workers.models.onnx_layers import LayerFinder

EXPORTER = "onnxscript"
LONGEST_REASON = 300


@dataclass(frozen=True)
class Exported:
    """``layers``: those of the ONNX model, each id the name of its node. ``versions`` made these names."""

    layers: tuple[Layer, ...]
    versions: dict[str, str]


@dataclass(frozen=True)
class NotExported:
    """There is no ONNX model, and why."""

    reason: str


def exported_layers(archive: Path) -> Exported | NotExported:
    """Export the archive as ``torch.onnx.export(program, dynamo=True)`` does. Takes seconds.

    The archive can run code: call this only in a process that may be lost.
    """
    if find_spec(EXPORTER) is None:
        return NotExported(f"the worker has no ONNX exporter: {EXPORTER} is not installed there")
    import torch  # seconds, which a process that only reads the answer need not spend

    try:
        program = torch.onnx.export(torch.export.load(archive), dynamo=True, verbose=False)
        assert program is not None
        with TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            program.save(str(file), external_data=False)
            layers = LayerFinder(read_onnx(file, fuse_bn=True)).find()
    except Exception as error:  # the archive decides what is raised here; a report without this map is still one
        return NotExported(f"torch.onnx.export failed: {first_line(_root(error), most=LONGEST_REASON)}")
    return Exported(tuple(each.layer for each in layers), {name: version(name) for name in ("torch", EXPORTER)})


def _root(error: BaseException) -> BaseException:
    """The error behind the exporter's own ones, which say only at which of its steps it happened."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
