"""A Q/DQ graph in the form that ONNX Runtime has integer kernels for: to be timed, never to be scored.

The graph that deploys is placed for TensorRT: symmetric int8, and nothing behind a layer. ONNX Runtime makes one
integer kernel of a convolution, an addition or a pool only where a quantizer follows it, takes an activation function
into that kernel only where the quantizer's range makes it needless, and has some products for uint8 alone. So here
activations are uint8 (zero point 128, and 0 behind a Relu), and a pair stands behind every such layer too. The levels
of weights are the same, and so are the layers and their nodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from workers.exports.onnx_steps import reads_of
from workers.exports.pairs import DEQUANTIZE, QUANTIZE, QdqGraph, Quantizer
from workers.exports.placement import JOINS, MOVES
from workers.exports.qdq_onnx import QdqExport
from workers.models.fake_quant import scale_of
from workers.models.onnx_constants import Constants
from workers.models.onnx_layers import Found
from workers.models.onnx_names import fresh_prefix
from workers.models.onnx_walk import all_names, count_readers, rename_reads

Array = npt.NDArray[np.generic]

NEEDS_QUANTIZER_BEHIND = {"Conv", "Gemm", "Add", "AveragePool", "GlobalAveragePool"}
ABSORBED = {"Relu", "Clip"}
LEVELS_SIGNED, LEVELS_UNSIGNED = 127, 255


@dataclass(frozen=True)
class IntegerForm:
    """The graph, with its large initializers declared but not held, and their values."""

    model: onnx.ModelProto
    weights: Mapping[str, Array]


def tensors_behind(graph: onnx.GraphProto, found: Sequence[Found]) -> tuple[str, ...]:
    """What the layers give that need a quantizer behind them, past the activation function that goes with each.

    An addition needs one only where both of its operands are quantized: else it runs in floating point all the same.
    """
    readers = count_readers(graph)
    only_reader = {name: node for node in graph.node for name in node.input if readers[name] == 1}
    layers = {each.node: each for each in found}
    tensors: list[str] = []
    for node in graph.node:
        if node.name in layers and node.op_type in NEEDS_QUANTIZER_BEHIND:
            operands = layers[node.name].operands
            if node.op_type == "Add" and any(
                index not in operands and name not in tensors for index, name in enumerate(node.input)
            ):
                continue
            following = only_reader.get(node.output[0])
            absorbed = following is not None and following.op_type in ABSORBED and following.input[0] == node.output[0]
            tensors.append(following.output[0] if following is not None and absorbed else node.output[0])
    return tuple(tensors)


def integer_form(export: QdqExport, found: Sequence[Found], ranges: Mapping[str, float]) -> IntegerForm:
    """``found``: the layers of the graph; ``ranges``: amax of each of ``tensors_behind`` that the fp32 graph has.

    Those of layers that the export leaves in floating point get no quantizer. An output of the graph gets one too, as
    ONNX Runtime's own quantizer places it.
    """
    inside = [each for each in found if each.layer.id in export.int8]
    return _Form(export).finished(tensors_behind(export.model.graph, inside), ranges)


class _Form:
    def __init__(self, export: QdqExport) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(export.model)
        self._weights = export.weights
        self._qdq = QdqGraph(self.model, export.weights)
        self._graph = self.model.graph
        self._constants = Constants(self.model, export.weights)
        self._makers = dict(self._qdq.makers)
        self._prefix = fresh_prefix(all_names(self._graph), "timed/")
        self._pairs = {self._qdq.quantizes[each.source].source: each for each in self._qdq.activation_pairs}

    def finished(self, behind: Sequence[str], ranges: Mapping[str, float]) -> IntegerForm:
        amax = {tensor: self._amax_of(pair) for tensor, pair in self._pairs.items()}
        for tensor, pair in self._pairs.items():
            self._retype(tensor, pair, amax[tensor])
            self._read_by_all(tensor, pair)
        for tensor in dict.fromkeys(behind):
            if tensor not in self._pairs:
                self._add_pair(tensor, self._shared(tensor, amax) or ranges[tensor])
        self._sort()
        return IntegerForm(self.model, self._weights)

    def _amax_of(self, pair: Quantizer) -> float:
        assert pair.scale is not None  # the exporter writes constants
        return float(pair.scale) * LEVELS_SIGNED

    def _shared(self, tensor: str, amax: Mapping[str, float]) -> float | None:
        """The range of the pair that moves up to this tensor, so that what lies between stays in integers."""
        for node, _ in self._qdq.readers.get(tensor, ()):
            if node.op_type in JOINS | MOVES and node.output[0] in amax:
                return amax[node.output[0]]
        return None

    def _unsigned(self, tensor: str) -> bool:
        """Whether it cannot be negative, by what makes it."""
        maker = self._makers.get(tensor)
        if maker is None:
            return False
        if maker.op_type == "Relu":
            return True
        if maker.op_type == "Clip":
            low = self._constants.value(maker.input[1]) if len(maker.input) > 1 and maker.input[1] else None
            return low is not None and float(low.item()) >= 0
        joined = [name for name in maker.input if name not in self._constants]
        return maker.op_type in JOINS | MOVES and all(self._unsigned(name) for name in joined)

    def _levels(self, tensor: str, amax: float) -> tuple[str, str]:
        """The names of a scale and a zero point."""
        unsigned = self._unsigned(tensor)
        scale = np.asarray(scale_of(amax * LEVELS_SIGNED / LEVELS_UNSIGNED if unsigned else amax))
        zero = np.asarray(0 if unsigned else 128, dtype=np.uint8)
        names = f"{self._prefix}{tensor}_scale", f"{self._prefix}{tensor}_zero"
        self._graph.initializer.extend(
            numpy_helper.from_array(value, name) for value, name in zip((scale, zero), names, strict=True)
        )
        return names

    def _retype(self, tensor: str, pair: Quantizer, amax: float) -> None:
        scale, zero = self._levels(tensor, amax)
        for node in (pair.node, self._qdq.quantizes[pair.source].node):
            node.input[1], node.input[2] = scale, zero

    def _read_by_all(self, tensor: str, pair: Quantizer) -> None:
        quantize = self._qdq.quantizes[pair.source].node
        for node in self._graph.node:
            if node.name != quantize.name:
                rename_reads(node, {tensor: pair.result})

    def _add_pair(self, tensor: str, amax: float) -> None:
        """The maker's result gets another name, so that whoever reads the tensor reads it quantized."""
        maker = self._makers[tensor]
        raw, levels, stem = f"{self._prefix}{tensor}_raw", f"{self._prefix}{tensor}_q", f"{self._prefix}{tensor}"
        constants = self._levels(tensor, amax)
        maker.output[list(maker.output).index(tensor)] = raw
        quantize = onnx.helper.make_node(QUANTIZE, [raw, *constants], [levels], name=f"{stem}_{QUANTIZE}")
        dequantize = onnx.helper.make_node(DEQUANTIZE, [levels, *constants], [tensor], name=f"{stem}_{DEQUANTIZE}")
        self._graph.node.extend([quantize, dequantize])

    def _sort(self) -> None:
        """Each node behind those that it reads from: pairs are read earlier than where they were made."""
        makers = {name: node for node in self._graph.node for name in node.output if name}
        ordered: dict[str, onnx.NodeProto] = {}
        for last in self._graph.node:
            stack = [last]
            while stack:
                node = stack[-1]
                before = [makers[name] for name in reads_of(node) if name in makers]
                pending = [each for each in before if each.name not in ordered]
                stack.extend(pending)
                if not pending:
                    ordered[stack.pop().name] = node
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered.values()]
        del self._graph.node[:]
        self._graph.node.extend(copies)
