"""Layers, their quantizers, and the variants of a model that a sweep measures."""

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Operation(StrEnum):
    """The quantizable operations."""

    CONV = "Conv"
    CONV_TRANSPOSE = "ConvTranspose"
    LINEAR = "Linear"
    MATMUL = "MatMul"
    ADD = "Add"
    AVERAGE_POOL = "AveragePool"
    PLUGIN = "Plugin"
    """An operator that only a library of this installation knows; it computes in floating point."""


class Frozen(BaseModel):
    """A stored, typed value: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(Frozen):
    """An input or output of a model. ``shape``: None or a symbol's name where the size is free."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class Layer(Frozen):
    """One quantizable operation, fused as an engine would fuse it.

    ``id`` is the node's own name and unique in the model; ``name`` is what people see: the module path
    (``layer1.0.conv1``; ``layer1.0.add`` for an operation without weights), the same in both model formats.
    ``activations``: the activation edges that this layer quantizes, each ``"<layer id>:<input index>"``; of a plugin
    those behind it too, each ``"<layer id>=><output index>"``.
    ``macs`` are per sample, ``weight_bytes`` in float32.
    """

    id: str
    name: str
    op: Operation
    activations: tuple[str, ...]
    weight: str | None = None
    weight_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None
    macs: int | None = None
    weight_bytes: int = 0


def output_edge(layer_id: str, index: int) -> str:
    """The activation edge behind the ``index``-th output of a plugin."""
    return f"{layer_id}=>{index}"


class SkippedOperation(Frozen):
    """A quantizable operation that is not made a layer, and why."""

    id: str
    name: str
    reason: str


class Variant(Frozen):
    """A way to run the model: ``int8`` holds the ids of the layers in int8; all others stay in floating point."""

    name: str
    int8: frozenset[str]


FP32 = "fp32"
FP32_REPEATED = "fp32_repeated"
ALL_INT8 = "all_int8"
CONTROLS = (FP32, FP32_REPEATED, ALL_INT8)
LAYER_PREFIX = "layer:"


def controls(layer_ids: Iterable[str]) -> tuple[Variant, ...]:
    """The three controls of every table: fp32, fp32 once more, and every layer in int8."""
    none: frozenset[str] = frozenset()
    return (
        Variant(name=FP32, int8=none),
        Variant(name=FP32_REPEATED, int8=none),
        Variant(name=ALL_INT8, int8=frozenset(layer_ids)),
    )
