"""What a decision weighs: what layers cost, what a change of precision between them costs, and who decides together."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from pydantic import Field

from service.domain.layers import Frozen, Layer
from service.domain.results import Interval


class Precision(StrEnum):
    """What a layer may run in."""

    INT8 = "int8"
    FP16 = "fp16"
    FP32 = "fp32"


class CostName(StrEnum):
    """What is to be kept small.

    ``layers``: the number of layers in floating point. ``macs``: multiply-accumulates in floating point, per sample.
    ``weight_bytes``: bytes of all weights as stored. ``bops``: bit operations per sample, MACs × weight bits ×
    activation bits (van Baalen et al., Bayesian Bits, NeurIPS 2020). ``latency``: seconds per sample, measured.
    """

    LAYERS = "layers"
    MACS = "macs"
    WEIGHT_BYTES = "weight_bytes"
    BOPS = "bops"
    LATENCY = "latency"


FLOAT32_BYTES = 4


class LayerCost(Frozen):
    """What one layer costs. ``latency``: precision → measured seconds per sample; none where it was not measured."""

    layer: str
    macs: int | None
    weights: int
    latency: Mapping[Precision, Interval] = Field(default_factory=dict)

    @classmethod
    def of(cls, layer: Layer) -> "LayerCost":
        """What the layer itself tells; nothing is measured."""
        return cls(layer=layer.id, macs=layer.macs, weights=layer.weight_bytes // FLOAT32_BYTES)


class Boundary(Frozen):
    """A tensor that flows from one layer to another, ``elements`` per sample.

    Where only one of the two is in int8 somebody converts it: a quantize, a dequantize, or a cast. ``latency``:
    measured seconds per sample of that conversion, None where it was not measured.
    """

    source: str
    target: str
    elements: int
    latency: float | None = None


class Group(Frozen):
    """Layers (ids) that share one precision, and why.

    ``residual_add``: an addition and the layer that it is fused with. ``concat``: branches of one concatenation.
    ``shared_input``: they read the same tensor (Q, K and V of attention). ``user``: asked for by a pattern.

    A graph with Q/DQ runs whichever way it is cut; the first two are what an int8 kernel takes (TensorRT developer
    guide, "Explicit quantization", "Q/DQ layer-placement recommendations"): a convolution in float cannot take the
    addition into an int8 kernel, and a concatenation is int8 only where all of its inputs are, by one scale. Sharing
    an input is merely sensible: one quantizer serves all readers, and products of one precision can be one product.
    """

    name: str
    layers: tuple[str, ...]
    reason: Literal["shared_input", "residual_add", "concat", "user"]


class TimedGraph(Frozen):
    """One whole graph as it ran with its layers in ``precision``, and where its time went.

    ``wall``: seconds per sample. Shares of that: ``layers`` in kernels that compute layers, ``conversions`` in
    quantize and dequantize kernels, ``other``: operator → in kernels that are no layer's, ``outside`` in none.
    """

    precision: Precision
    wall: Interval
    layers: float
    conversions: float
    other: Mapping[str, float]
    outside: float


class CostModel(Frozen):
    """All layers' costs, the boundaries between them, and the groups.

    Where latencies were measured: ``measured_on``, the device and how it was used; ``batch_size``, the samples of each
    run; ``timed``, the graphs that ran. ``notes``: what is not known or not as it seems, in sentences.
    """

    layers: tuple[LayerCost, ...]
    boundaries: tuple[Boundary, ...] = ()
    groups: tuple[Group, ...] = ()
    measured_on: str | None = None
    batch_size: int | None = None
    timed: tuple[TimedGraph, ...] = ()
    notes: tuple[str, ...] = ()
