"""Reads back from an engine which of its layers really compute in int8."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workers.backends.tensorrt.names import onnx_nodes

FORMAT_KEYS = ("Format/Datatype", "Datatype", "DataType", "Format")
MOVES = {"Reformat", "NoOp", "Shuffle", "Constant", "Quantize", "Dequantize"}
"""Layer types that move or convert tensors: an int8 input says nothing of how the layer computes."""


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine. ``nodes``: the ONNX nodes fused in it.

    ``int8_inputs``: how many of its input tensors are int8. ``int8_weights`` None: the inspector lists no weights.
    """

    name: str
    kind: str
    nodes: frozenset[str]
    int8_inputs: int
    int8_weights: bool | None

    @property
    def computes(self) -> bool:
        """Whether it computes rather than moves data."""
        return self.kind not in MOVES

    @property
    def in_int8(self) -> bool:
        """Whether any tensor that it computes from is int8."""
        return self.computes and (self.int8_inputs > 0 or self.int8_weights is True)


def read_layers(information: str) -> tuple[EngineLayer, ...]:
    """The layers of ``EngineInspector.get_engine_information(JSON)``; raises ValueError where there is no detail.

    An engine that was not built with detailed profiling verbosity lists names alone.
    """
    document = json.loads(information)
    found = document.get("Layers") if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError("the engine's inspector gives no details of its layers")
    return tuple(_layer(each) for each in found)


def _layer(document: Mapping[str, Any]) -> EngineLayer:
    name = str(document.get("Name", ""))
    weights = document.get("Weights")
    return EngineLayer(
        name=name,
        kind=str(document.get("LayerType", "")),
        nodes=onnx_nodes(name, str(document.get("Metadata", ""))),
        int8_inputs=sum(_is_int8(each) for each in document.get("Inputs", ())),
        int8_weights=str(weights.get("Type", "")).lower() == "int8" if isinstance(weights, dict) else None,
    )


def _is_int8(tensor: Mapping[str, Any]) -> bool:
    return any("int8" in str(tensor.get(key, "")).lower().split() for key in FORMAT_KEYS)


def why_not_realised(
    layers: Iterable[EngineLayer], wanted: Mapping[str, int], unwanted: Iterable[str] = ()
) -> str | None:
    """Why the engine is not the variant that was asked for; None where it is.

    ``wanted``: ONNX node → how many of its activations are to be int8. ``unwanted``: the nodes that are to stay in
    floating point. A node fused with a wanted one is not held against it.
    """
    computing = [each for each in layers if each.computes]
    for node, operands in wanted.items():
        holding = [each for each in computing if node in each.nodes]
        if not holding:
            return f"the engine lists no layer that holds {node!r}"
        if not any(each.in_int8 and each.int8_inputs >= operands for each in holding):
            return f"{node!r} runs in floating point, in the engine's layer {holding[0].name!r} ({holding[0].kind})"
    free = set(unwanted)
    for each in computing:
        if each.in_int8 and each.nodes & free and not each.nodes & wanted.keys():
            return f"{min(each.nodes & free)!r} runs in int8 too, in the engine's layer {each.name!r}"
    return None
