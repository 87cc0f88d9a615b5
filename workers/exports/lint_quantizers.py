"""Lint rules that look at one quantizer or one quantized tensor."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.exports.lint_rules import Finding, Rule
from workers.exports.pairs import QdqGraph, Quantizer


def lint_quantizers(graph: QdqGraph) -> Iterator[Finding]:
    """Everything that is wrong with the pairs themselves. A bias is judged with its layer."""
    for dequantize in graph.dequantizes.values():
        if _is_bias(graph, dequantize):
            continue
        quantize = graph.quantizes.get(dequantize.source)
        yield from _one(graph, quantize or dequantize)
        if quantize is not None:
            yield from _pair(quantize, dequantize)
        elif dequantize.source not in graph.constants:
            yield Finding(
                Rule.UNPAIRED, dequantize.node.name, dequantize.source, "it dequantizes what no QuantizeLinear made"
            )
    for quantize in graph.quantizes.values():
        readers = graph.readers.get(quantize.result, [])
        if not any(node.op_type == "DequantizeLinear" for node, _ in readers):
            yield from _one(graph, quantize)
            yield Finding(Rule.UNPAIRED, quantize.node.name, quantize.source, "no DequantizeLinear reads its result")
    yield from _several(graph)


def _is_bias(graph: QdqGraph, dequantize: Quantizer) -> bool:
    readers = graph.readers.get(dequantize.result, [])
    return bool(readers) and all(node.op_type in {"Conv", "ConvTranspose", "Gemm"} and at == 2 for node, at in readers)


def _one(graph: QdqGraph, each: Quantizer) -> Iterator[Finding]:
    name, tensor = each.node.name, each.source
    if each.kind != "int8":
        yield Finding(Rule.NOT_INT8, name, tensor, f"the integers are {each.kind}, not int8")
    elif each.zero is not None and np.any(each.zero != 0):
        yield Finding(Rule.ASYMMETRIC, name, tensor, f"the zero point is {_shown(each.zero)}, not 0")
    if each.scale is None:
        yield Finding(Rule.DYNAMIC_SCALE, name, tensor, "the scale is computed at run time")
    elif not (np.isfinite(each.scale).all() and (each.scale > 0).all()):
        yield Finding(Rule.BAD_SCALE, name, tensor, f"the scale is {_shown(each.scale)}")
    if each.axis is not None and tensor not in graph.constants:
        assert each.scale is not None
        yield Finding(Rule.PER_CHANNEL_ACTIVATION, name, tensor, f"an activation has {each.scale.size} scales")


def _shown(values: npt.NDArray[Any]) -> str:
    return str(values.item()) if values.size == 1 else f"{values.reshape(-1)[0]} and others"


def _pair(quantize: Quantizer, dequantize: Quantizer) -> Iterator[Finding]:
    if quantize.scale is not None and not quantize.same_scale(dequantize):
        why = f"its scale differs from that of {quantize.node.name}"
        yield Finding(Rule.MISMATCHED_PAIR, dequantize.node.name, quantize.source, why)


def _several(graph: QdqGraph) -> Iterator[Finding]:
    """Tensors that are quantized more than once, or right after they were dequantized."""
    first: dict[str, Quantizer] = {}
    for quantize in graph.quantizes.values():
        name, tensor = quantize.node.name, quantize.source
        if tensor in graph.constants:
            continue
        before = first.setdefault(tensor, quantize)
        if before is not quantize:
            same = before.same_scale(quantize)
            why = f"{before.node.name} quantizes it too, with {'the same scale' if same else 'another scale'}"
            yield Finding(Rule.REPEATED_PAIR if same else Rule.SEVERAL_SCALES, name, tensor, why)
        if tensor in graph.dequantizes:
            why = f"it quantizes the result of {graph.dequantizes[tensor].node.name} again"
            yield Finding(Rule.REQUANTIZE, name, tensor, why)
