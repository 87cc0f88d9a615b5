"""Makes the mixed-precision graph that deploys: Q/DQ where layers are int8, placed as TensorRT fuses best.

One pair for each quantized tensor, read by all its int8 readers; the others read the tensor itself. Weights are int8
initializers with a DequantizeLinear; biases stay in floating point. Nothing lies behind a layer, so that a batch norm
and an activation fuse with it; a plugin alone has pairs behind it too. (TensorRT developer guide, "Explicit
quantization", "Q/DQ placement recommendations".)
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from service.domain.errors import InvalidInput
from service.domain.layers import Operation, output_edge
from service.inspection.formats import quoted
from workers.exports.half import KeptFloat32, halved
from workers.exports.onnx_steps import live_nodes, reads_of, steps_of
from workers.exports.scales import QuantizedEdge, Rescaled, ScalePlan, plan_scales
from workers.models.fake_quant import quantize, scale_of
from workers.models.onnx_constants import Constants
from workers.models.onnx_graph import OnnxProgram, declare_external, without_unused
from workers.models.onnx_layers import Found
from workers.models.onnx_names import fresh_prefix
from workers.models.onnx_walk import all_names, rename_reads

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class QdqSettings:
    """How to quantize. ``transposed_axis``: of the scales of a ConvTranspose weight (in × out × …); tools disagree.

    ``unify``: one scale on all branches of Concat and MaxPool. ``half_fallback``: layers that are not int8 compute in
    float16, and what only follows them too.
    """

    per_channel: bool = True
    transposed_axis: Literal[0, 1] = 1
    unify: bool = True
    half_fallback: bool = False


@dataclass(frozen=True)
class QdqExport:
    """The graph, with its large initializers declared but not held, and their values in ``weights``.

    ``rescaled``: edges whose range differs from the measured one. ``kept_float32``: fallback layers that could not be
    float16, and why.
    """

    model: onnx.ModelProto
    weights: Mapping[str, Array]
    int8: tuple[str, ...]
    rescaled: tuple[Rescaled, ...] = ()
    kept_float32: tuple[KeptFloat32, ...] = ()


def export_qdq(
    program: OnnxProgram,
    found: Sequence[Found],
    amax: Mapping[str, float],
    *,
    fallback: Collection[str] = (),
    settings: QdqSettings | None = None,
) -> QdqExport:
    """The graph with all layers but ``fallback`` in int8. ``amax``: activation edge → range.

    Raises InvalidInput where ``fallback`` names no layer, an edge has no usable range, or a weight is not finite.
    """
    settings = settings or QdqSettings()
    unknown = sorted(set(fallback) - {each.layer.id for each in found})
    if unknown:
        raise InvalidInput(f"fallback: the model has no layer {quoted(unknown[0])}", field="fallback")
    chosen = {each.node: each for each in found if each.layer.id not in fallback}
    graph = program.skeleton.graph
    constants = Constants(program.skeleton, program.weights)
    edges = [edge for node in graph.node if node.name in chosen for edge in _edges(node, chosen[node.name], amax)]
    given_out = {each.name for each in graph.output}
    reads = edges + _plugin_outputs(graph, chosen, amax)
    plan = plan_scales(steps_of(graph, constants), reads, given_out, unify=settings.unify)
    made = _Graph(program, plan, settings)
    for node in graph.node:
        made.add(node, chosen.get(node.name))
    int8 = tuple(each.layer.id for each in found if each.node in chosen)
    kept: tuple[KeptFloat32, ...] = ()
    if settings.half_fallback:
        half = {each.node: each.layer.id for each in found if each.node not in chosen}
        kept = halved(made.model, made.weights, half, constants)
    return QdqExport(made.finished(), made.weights, int8, plan.rescaled, kept)


def _edges(node: onnx.NodeProto, found: Found, amax: Mapping[str, float]) -> list[QuantizedEdge]:
    ids = {f"{found.layer.id}:{index}": node.input[index] for index in found.operands}
    return [QuantizedEdge(edge, node.name, tensor, _range(amax, edge)) for edge, tensor in ids.items()]


def _plugin_outputs(
    graph: onnx.GraphProto, chosen: Mapping[str, Found], amax: Mapping[str, float]
) -> list[QuantizedEdge]:
    """The edges behind quantized plugins, as each of their readers sees them."""
    edges = []
    for node in graph.node:
        if node.name not in chosen:
            continue
        found = chosen[node.name]
        for index in found.quantized_outputs:
            edge, tensor = output_edge(found.layer.id, index), node.output[index]
            readers = [each.name for each in graph.node if tensor in set(reads_of(each))]
            edges += [QuantizedEdge(edge, reader, tensor, _range(amax, edge)) for reader in readers]
    return edges


def _range(amax: Mapping[str, float], edge: str) -> float:
    value = amax.get(edge)
    if value is None:
        raise InvalidInput(f"amax: the edge {quoted(edge)} of a layer in int8 has no range", field="amax")
    if not (np.isfinite(value) and value >= 0):
        raise InvalidInput(f"amax: the range of {quoted(edge)} is {value}; it must be finite and not below 0")
    return value


class _Graph:
    """The graph as it grows."""

    def __init__(self, program: OnnxProgram, plan: ScalePlan, settings: QdqSettings) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(program.skeleton)
        self._graph = self.model.graph
        del self._graph.node[:]
        del self._graph.value_info[:]  # shapes of tensors that may be gone; whoever reads the file infers them
        self.weights: dict[str, Array] = dict(program.weights)
        names = all_names(program.skeleton.graph)
        self._prefix, self._weight_prefix = fresh_prefix(names, "int8/"), fresh_prefix(names, "int8_weight/")
        self._plan = plan
        self._settings = settings
        self._pairs: dict[str, str] = {}
        self._behind: dict[str, str] = {}  # output of a plugin → what every reader reads for it
        self._weights: dict[tuple[str, int | None], str] = {}

    def add(self, original: onnx.NodeProto, found: Found | None) -> None:
        """Append a node; in int8 where ``found`` is its layer."""
        node = onnx.NodeProto()
        node.CopyFrom(original)
        rename_reads(node, self._behind)
        if found is None:
            self._graph.node.append(node)
            return
        for index in found.operands:
            node.input[index] = self._pair(original.input[index])
        if found.weight is not None:
            node.input[found.weight[0]] = self._weight(node.input[found.weight[0]], found)
        self._graph.node.append(node)
        for index in found.quantized_outputs:
            if node.output[index] in self._plan.amax:  # else nobody reads it
                self._behind[node.output[index]] = self._pair(node.output[index])

    def _pair(self, tensor: str) -> str:
        """The dequantized tensor; its pair is made at the first call."""
        if tensor not in self._pairs:
            self._pairs[tensor] = f"{self._prefix}{tensor}_dq"
            self._add_pair(tensor, self._pairs[tensor])
        return self._pairs[tensor]

    def _add_pair(self, tensor: str, result: str) -> None:
        stem = f"{self._prefix}{tensor}"
        scale = numpy_helper.from_array(np.asarray(scale_of(self._plan.amax[tensor])), f"{stem}_scale")
        zero = numpy_helper.from_array(np.zeros((), dtype=np.int8), f"{stem}_zero")
        self._graph.initializer.extend([scale, zero])
        self._node("QuantizeLinear", [tensor, scale.name, zero.name], f"{stem}_q", stem)
        self._node("DequantizeLinear", [f"{stem}_q", scale.name, zero.name], result, stem)

    def _node(self, op: str, inputs: list[str], output: str, stem: str, **attributes: int) -> None:
        self._graph.node.append(onnx.helper.make_node(op, inputs, [output], name=f"{stem}_{op}", **attributes))

    def _weight(self, tensor: str, found: Found) -> str:
        """The dequantized weight; layers that share a weight share it too."""
        assert found.weight is not None
        value = found.weight[1]
        if not np.isfinite(value).all():
            raise InvalidInput(
                f"the weight of layer {quoted(found.layer.id)} holds NaN or infinite values: it cannot be int8"
            )
        axis = self._axis(found)
        if (tensor, axis) not in self._weights:
            stem = f"{self._weight_prefix}{tensor}_" + ("tensor" if axis is None else f"axis{axis}")
            levels, scale = quantize(value.astype(np.float32), axis)
            self._store(f"{stem}_int8", levels)
            self._store(f"{stem}_scale", scale.reshape(-1) if axis is not None else scale.reshape(()))
            self._store(f"{stem}_zero", np.zeros(scale.size if axis is not None else (), dtype=np.int8))
            self._weights[tensor, axis] = f"{stem}_dq"
            inputs = [f"{stem}_int8", f"{stem}_scale", f"{stem}_zero"]
            self._node("DequantizeLinear", inputs, f"{stem}_dq", stem, **({} if axis is None else {"axis": axis}))
        return self._weights[tensor, axis]

    def _axis(self, found: Found) -> int | None:
        assert found.weight is not None
        _, value, axis = found.weight
        if not self._settings.per_channel:
            return None
        if found.layer.op is Operation.CONV_TRANSPOSE and self._settings.transposed_axis == 0:
            return 0
        return None if axis is None else axis % value.ndim

    def _store(self, name: str, value: Array) -> None:
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        tensor = onnx.TensorProto(name=name, data_type=kind, dims=value.shape)
        declare_external(tensor)
        self._graph.initializer.append(tensor)
        self.weights[name] = value

    def finished(self) -> onnx.ModelProto:
        """The graph without what nothing reads any more; drops the values of such weights too."""
        kept = live_nodes(self._graph)
        copies = [onnx.NodeProto.FromString(each.SerializeToString()) for each in kept]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        model = without_unused(self.model)
        present = {each.name for each in model.graph.initializer}
        for name in [each for each in self.weights if each not in present]:
            del self.weights[name]
        return model
