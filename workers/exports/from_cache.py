"""Makes an explicit Q/DQ graph from a float32 graph and a TensorRT calibration cache, whose names are its tensors'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from service.domain.errors import InvalidInput
from service.domain.layers import output_edge
from service.inspection.calibration_cache import CacheEntry, CalibrationCache
from service.inspection.formats import quoted
from workers.exports.qdq_onnx import QdqExport, QdqSettings, export_qdq
from workers.models.onnx_graph import OnnxProgram
from workers.models.onnx_layers import Found


@dataclass(frozen=True)
class LeftFloat:
    """A layer that is not int8 in the converted graph, and why."""

    layer: str
    name: str
    reason: str


@dataclass(frozen=True)
class Renamed:
    """A tensor whose scale stands under another name: that of the convolution before its batch norm was folded."""

    tensor: str
    entry: str


@dataclass(frozen=True)
class CacheRanges:
    """Activation edge → range, of the layers that have all theirs; the others are in ``left_float``.

    ``unused``: tensors of the cache that no quantized edge reads.
    """

    amax: Mapping[str, float]
    left_float: tuple[LeftFloat, ...]
    renamed: tuple[Renamed, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class FromCache:
    """The converted graph, and what of the cache went into it."""

    export: QdqExport
    ranges: CacheRanges


def folded_names(original: onnx.GraphProto) -> dict[str, str]:
    """Output of a batch norm → output of the operation before it: what a cache may call the folded pair's output."""
    return {node.output[0]: node.input[0] for node in original.node if node.op_type == "BatchNormalization"}


def cache_ranges(
    program: OnnxProgram, found: Sequence[Found], cache: CalibrationCache, *, aliases: Mapping[str, str]
) -> CacheRanges:
    """What a cache says of these layers. ``aliases``: tensor → another name to look for (``folded_names``).

    A range is 127 times the scale, in float64 exactly, so that dividing it by 127 gives the scale's own bits again.
    Raises InvalidInput where no layer has its scales, since the cache is then most likely of another model.
    """
    lookup = _Lookup(cache, aliases)
    nodes = {node.name: node for node in program.skeleton.graph.node}
    amax: dict[str, float] = {}
    left: list[LeftFloat] = []
    for each in found:
        ranges, reason = lookup.ranges(each, nodes[each.node])
        amax |= ranges
        if reason is not None:
            left.append(LeftFloat(each.layer.id, each.layer.name, reason))
    if len(left) == len(found):
        first = f"; for example {left[0].name}: {left[0].reason}" if left else ""
        raise InvalidInput(f"the cache has the scales of none of the model's {len(found)} layers{first}")
    unused = tuple(each.tensor for each in cache.entries if each.tensor not in lookup.used)
    return CacheRanges(amax, tuple(left), tuple(lookup.renamed), unused)


def from_cache(
    program: OnnxProgram,
    found: Sequence[Found],
    cache: CalibrationCache,
    *,
    aliases: Mapping[str, str],
    settings: QdqSettings | None = None,
) -> FromCache:
    """The graph with every layer in int8 whose inputs all have a usable scale; raises as ``cache_ranges`` does."""
    ranges = cache_ranges(program, found, cache, aliases=aliases)
    fallback = {each.layer for each in ranges.left_float}
    return FromCache(export_qdq(program, found, ranges.amax, fallback=fallback, settings=settings), ranges)


class _Lookup:
    """Scales by tensor; what was used, and under which name."""

    def __init__(self, cache: CalibrationCache, aliases: Mapping[str, str]) -> None:
        self._entries = cache.by_tensor
        self._aliases = aliases
        self.used: set[str] = set()
        self.renamed: list[Renamed] = []

    def ranges(self, found: Found, node: onnx.NodeProto) -> tuple[dict[str, float], str | None]:
        """The ranges of a layer's edges; or why it has not got them all."""
        edges = {f"{found.layer.id}:{index}": node.input[index] for index in found.operands}
        edges |= {output_edge(found.layer.id, index): node.output[index] for index in found.quantized_outputs}
        entries = {edge: self._entry(tensor) for edge, tensor in edges.items()}
        for edge, entry in entries.items():
            if entry is None:
                return {}, f"the cache has no entry for the tensor {quoted(edges[edge])}"
            if not entry.usable:
                return {}, f"the scale of {quoted(entry.tensor)} is {entry.scale}, which quantizes nothing"
        if found.weight is not None and not np.isfinite(found.weight[1]).all():
            return {}, "its weight holds NaN or infinite values"
        for edge, entry in entries.items():
            self._use(edges[edge], entry)
        return {edge: entry.amax for edge, entry in entries.items() if entry is not None}, None

    def _entry(self, tensor: str) -> CacheEntry | None:
        own = self._entries.get(tensor)
        return own if own is not None else self._entries.get(self._aliases.get(tensor, ""))

    def _use(self, tensor: str, entry: CacheEntry | None) -> None:
        assert entry is not None
        renamed = Renamed(tensor, entry.tensor)
        if entry.tensor != tensor and renamed not in self.renamed:
            self.renamed.append(renamed)
        self.used.add(entry.tensor)
