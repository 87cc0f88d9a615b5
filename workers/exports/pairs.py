"""The Q/DQ pairs of any ONNX graph, with their constants read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx

from workers.exports.onnx_steps import STANDARD
from workers.models.onnx_constants import Constants

Array = npt.NDArray[np.generic]

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"


@dataclass(frozen=True)
class Quantizer:
    """A QuantizeLinear or DequantizeLinear. ``scale``, ``zero``: None where they are not constant.

    ``kind``: the NumPy name of the integers. ``axis``: of the scales; None where there is one for all.
    """

    node: onnx.NodeProto
    scale: npt.NDArray[np.float64] | None
    zero: Array | None
    kind: str
    axis: int | None

    @property
    def source(self) -> str:
        """The tensor that it reads."""
        return str(self.node.input[0])

    @property
    def result(self) -> str:
        """The tensor that it makes."""
        return str(self.node.output[0])

    def same_scale(self, other: "Quantizer") -> bool:
        """Whether both scales are constant and equal."""
        return self.scale is not None and other.scale is not None and np.array_equal(self.scale, other.scale)


class QdqGraph:
    """A graph with its quantizers found. ``weights``: the values of initializers that the graph only declares."""

    def __init__(self, model: onnx.ModelProto, weights: Mapping[str, Array]) -> None:
        self.graph = model.graph
        self.constants = Constants(model, weights)
        self.makers = {name: node for node in self.graph.node for name in node.output if name}
        self.given_out = {each.name for each in self.graph.output}
        self.quantizes = {each.result: each for each in self._found(QUANTIZE)}
        self.dequantizes = {each.result: each for each in self._found(DEQUANTIZE)}

    def _found(self, op: str) -> Iterator[Quantizer]:
        for node in self.graph.node:
            if node.op_type == op and node.domain in STANDARD | {"com.microsoft"}:
                yield self._quantizer(node)

    def _quantizer(self, node: onnx.NodeProto) -> Quantizer:
        scale = self.constants.value(node.input[1])
        zero = self.constants.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        source = self.constants.value(node.input[0])
        integers = source if node.op_type == DEQUANTIZE and source is not None else zero
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        kind = "uint8" if integers is None else str(integers.dtype)
        if integers is None and len(node.input) > 2 and node.input[2]:
            kind = "unknown"
        single = scale is None or scale.size == 1
        return Quantizer(
            node, None if scale is None else scale.astype(np.float64), zero, kind, None if single else axis
        )

    @cached_property
    def readers(self) -> Mapping[str, list[tuple[onnx.NodeProto, int]]]:
        """Tensor → the nodes that read it, and at which input."""
        found: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                if name:
                    found.setdefault(name, []).append((node, index))
        return found

    @cached_property
    def activation_pairs(self) -> tuple[Quantizer, ...]:
        """The DequantizeLinear nodes that give back an activation which was quantized before."""
        return tuple(
            each for each in self.dequantizes.values() if each.source in self.quantizes and not self.weight_like(each)
        )

    def weight_like(self, dequantize: Quantizer) -> bool:
        """Whether it gives a constant: an int8 initializer, or a float one that is quantized in the graph."""
        if dequantize.source in self.constants:
            return True
        quantize = self.quantizes.get(dequantize.source)
        return quantize is not None and quantize.source in self.constants

    def quantized_source(self, tensor: str) -> Quantizer | None:
        """The quantizer behind an activation that comes out of a pair; None for any other tensor."""
        dequantize = self.dequantizes.get(tensor)
        return None if dequantize is None else self.quantizes.get(dequantize.source)
