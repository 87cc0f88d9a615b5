"""Writes a graph whose weights are held apart: into one file, or beside it where they are too large for one."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from service.domain.errors import InvalidInput, first_line
from service.domain.no_space import no_space_told

Array = npt.NDArray[np.generic]

MOST_IN_ONE_FILE = 2**31 - 2**24
"""A protobuf message holds less than 2 GiB; the rest is room for the graph's own framing."""
ALIGNMENT = 64


def write_onnx(
    path: Path, model: onnx.ModelProto, weights: Mapping[str, Array], *, most_in_one_file: int = MOST_IN_ONE_FILE
) -> tuple[Path, ...]:
    """The files that were written: the model, and ``<name>.data`` where the weights are larger than one file holds.

    The files are checked first (onnx.checker, with shape inference) and only then take the place of older ones.
    Raises InvalidInput where the checker refuses the graph or the folder can't be written, NoSpace where it is full.
    """
    size = model.ByteSize() + sum(value.nbytes for value in weights.values())
    try:
        with no_space_told(), tempfile.TemporaryDirectory(dir=path.parent, prefix=".quantsieve-") as name:
            made = Path(name) / path.name
            if size <= most_in_one_file:
                made.write_bytes(_embedded(model, weights).SerializeToString())
            else:
                data = made.with_name(f"{path.name}.data")
                made.write_bytes(_beside(model, weights, data).SerializeToString())
            onnx.checker.check_model(str(made), full_check=True)
            files = sorted(Path(name).iterdir(), reverse=True)  # the data before the model that names it
            for file in files:
                os.replace(file, path.parent / file.name)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InvalidInput(f"the ONNX checker refuses the result: {first_line(error, most=300)}") from error
    return tuple(path.parent / file.name for file in reversed(files))


def _embedded(model: onnx.ModelProto, weights: Mapping[str, Array]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            value = np.asarray(weights[tensor.name], order="C")  # ascontiguousarray would give a scalar an axis
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return copy


def _beside(model: onnx.ModelProto, weights: Mapping[str, Array], data: Path) -> onnx.ModelProto:
    """The graph, its weights written into ``data`` one after another."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with data.open("xb") as file:
        for tensor in copy.graph.initializer:
            if tensor.name not in weights:
                continue
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            value = np.ascontiguousarray(weights[tensor.name])
            value = value.astype(value.dtype.newbyteorder("<"), copy=False)
            del tensor.external_data[:]
            for key, entry in (("location", data.name), ("offset", file.tell()), ("length", value.nbytes)):
                tensor.external_data.add(key=key, value=str(entry))
            file.write(value.reshape(-1).view(np.uint8).data)
    return copy
