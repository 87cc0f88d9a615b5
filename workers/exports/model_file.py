"""Opens an ONNX file for conversion or a check: quantized ones too, with external data that lies beside them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from service.domain.errors import RejectedFile, first_line
from service.inspection.content import is_zip, read_head
from workers.models.onnx_archive import unpacked
from workers.models.onnx_constants import constants_to_initializers
from workers.models.onnx_graph import LARGE_BYTES, NUMERIC, declare_external, load_onnx
from workers.models.onnx_names import name_nodes

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class ModelFile:
    """A checked graph whose nodes have names, its large initializers only declared; their values in ``weights``."""

    model: onnx.ModelProto
    weights: dict[str, Array]


def original_graph(path: Path) -> onnx.GraphProto:
    """The graph as it stands in a file that ``read_onnx`` takes (a zip too), without its external data."""
    if is_zip(read_head(path)):
        with unpacked(path) as file:
            return onnx.load(str(file), load_external_data=False).graph
    return onnx.load(str(path), load_external_data=False).graph


def open_model(path: Path) -> ModelFile:
    """Read the file of the person at the keyboard; raises RejectedFile that says what is wrong."""
    try:
        onnx.checker.check_model(str(path))
        model = onnx.load(str(path))
    except Exception as error:  # protobuf, the checker and external data raise what they like
        raise RejectedFile(f"{path} is not a valid ONNX model: {first_line(error, most=300)}") from error
    return _held_apart(model)


def open_upload(path: Path) -> ModelFile:
    """Read the file of a stranger: weights inside, or a zip with them; raises RejectedFile that says what is wrong."""
    return _held_apart(load_onnx(path))


def _held_apart(model: onnx.ModelProto) -> ModelFile:
    name_nodes(model.graph)
    constants_to_initializers(model.graph)
    weights: dict[str, Array] = {}
    for each in model.graph.initializer:
        value = numpy_helper.to_array(each)
        if value.nbytes >= LARGE_BYTES and value.dtype.kind in NUMERIC:
            weights[each.name] = value
            declare_external(each)
    return ModelFile(model, weights)
