"""A network of two layers as an ONNX model, and evaluation sets for it: small enough that a sweep takes a second."""

import io
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES, CHANNELS, SIDE = 4, 3, 8


def network(
    *, opset: int = 18, weights: Mapping[str, np.ndarray] | None = None, external: str | None = None
) -> onnx.ModelProto:
    """conv → relu → global average pool → fc: from float (n, 3, 8, 8) to (n, 4).

    ``weights`` replace its own; with ``external`` they are said to lie there, one after the other.
    """
    rng = np.random.default_rng(0)
    values = {
        "conv.weight": rng.standard_normal((16, CHANNELS, 3, 3)).astype(np.float32),
        "fc.weight": rng.standard_normal((CLASSES, 16)).astype(np.float32),
        **(weights or {}),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight"], ["y"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    if external is not None:
        _move_out(graph, external)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def weight_data(model: onnx.ModelProto) -> bytes:
    """The weights of a network, one after the other: what lies in its external data."""
    return b"".join(numpy_helper.to_array(each).tobytes() for each in model.graph.initializer)


def _move_out(graph: onnx.GraphProto, location: str) -> None:
    offset = 0
    for each in graph.initializer:
        length = len(each.raw_data)
        each.ClearField("raw_data")
        each.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            each.external_data.add(key=key, value=str(value))
        offset += length


def samples(count: int = 16) -> np.ndarray:
    """Standard normal inputs, float32 (count, 3, 8, 8)."""
    return np.random.default_rng(1).standard_normal((count, CHANNELS, SIDE, SIDE)).astype(np.float32)


def labels(count: int = 16) -> np.ndarray:
    """Class numbers, int64 (count,)."""
    return np.arange(count) % CLASSES


def npz(**arrays: np.ndarray) -> bytes:
    """An .npz of these arrays; of samples and labels where none are given."""
    out = io.BytesIO()
    np.savez(out, **(arrays or {"x": samples(), "labels": labels()}))
    return out.getvalue()
