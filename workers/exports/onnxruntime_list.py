"""The nodes that ONNX Runtime's quantize_static is to leave out, and those that it is to quantize."""

import json
from collections.abc import Collection
from typing import Any

from service.domain.layers import Operation
from service.domain.settings import WeightGranularity
from workers.exports.mixed_precision import MixedPrecision
from workers.exports.onnx_nodes import addressed

FILE = "onnxruntime.json"
SCHEMA_VERSION = 1
ONNX_TYPES = {
    Operation.CONV: ("Conv",),
    Operation.CONV_TRANSPOSE: ("ConvTranspose",),
    Operation.LINEAR: ("Gemm", "MatMul"),
    Operation.MATMUL: ("MatMul",),
    Operation.ADD: ("Add",),
    Operation.AVERAGE_POOL: ("AveragePool", "GlobalAveragePool", "ReduceMean"),
    Operation.PLUGIN: (),
}
NO_PLUGINS = "quantize_static quantizes operators of the standard domains only"
DIFFERENCES = (
    "quantize_static quantizes tensors: what reads the same tensor as a layer in int8 reads it quantized too, a "
    "fallback layer included; the sweep quantized it for the layers in int8 alone",
    "quantize_static quantizes both inputs of an Add; the sweep quantized the skip branch alone",
    "the ranges come from the calibration reader that you give, not from the sweep",
)
PLUGINS_DIFFER = (
    "quantize_static runs the model in sessions that are given no custom-op library: it takes no model with plugins, "
    "so take mixed.onnx in its place"
)
# quantize_static takes an empty nodes_to_quantize for all nodes, so that nothing in int8 is no question for it
SNIPPET = '''\
import json

from onnxruntime.quantization import QuantFormat, QuantType, quantize_static


def quantize(model, quantized, calibration_reader, decision="onnxruntime.json"):
    """Write ``quantized``, the model with Q/DQ nodes at the layers in int8; ``decision``: this file."""
    with open(decision, encoding="utf-8") as file:
        arguments = json.load(file)["quantize_static"]
    if not arguments["nodes_to_quantize"]:
        raise ValueError("no layer is in int8: there is nothing to quantize")
    quantize_static(
        model,
        quantized,
        calibration_reader,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        **arguments,
    )
'''


def document(mixed: MixedPrecision, nodes: Collection[str]) -> dict[str, Any]:
    """The arguments, how to give them, and what they leave open. ``nodes``: node names that stand in the file once."""
    plugins = [each for each in mixed.layers if each.op is Operation.PLUGIN]
    int8 = addressed([each for each in mixed.int8 if each not in plugins], nodes)
    floating = addressed([each for each in mixed.floating if each not in plugins], nodes)
    absent = [*int8.unnamed, *floating.unnamed, *((each.name, NO_PLUGINS) for each in plugins)]
    types = sorted({name for layer in mixed.int8 for name in ONNX_TYPES[layer.op]})
    return {
        "schema_version": SCHEMA_VERSION,
        "quantize_static": {
            "nodes_to_quantize": list(int8.names),
            "nodes_to_exclude": list(floating.names),
            "op_types_to_quantize": types,
            "per_channel": mixed.weights is WeightGranularity.PER_CHANNEL,
            "extra_options": {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": types,  # the next layer in int8 brings its own Q/DQ
                "ForceQuantizeNoInputCheck": True,  # else an average pool is quantized behind another layer only
            },
        },
        "not_addressable": [{"layer": name, "reason": reason} for name, reason in absent],
        "differences": [*DIFFERENCES, *([PLUGINS_DIFFER] if plugins else [])],
        "snippet": SNIPPET,
    }


def to_json(mixed: MixedPrecision, nodes: Collection[str]) -> bytes:
    """The same as JSON bytes."""
    return (json.dumps(document(mixed, nodes), indent=1) + "\n").encode()
