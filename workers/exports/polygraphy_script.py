"""A Polygraphy script that keeps layers of a TensorRT network in floating point, for TensorRT 10 and older."""

from collections.abc import Collection

from service.domain.costs import Precision
from service.domain.layers import Operation
from workers.exports.mixed_precision import MixedPrecision
from workers.exports.onnx_nodes import addressed
from workers.exports.quoting import comments, filled, listed, shown

FILE = "polygraphy_script.py"
TEMPLATE = '''\
"""Keeps the layers named here in ${precision}; TensorRT may run all others in int8. For TensorRT 10 and older:

    polygraphy convert model.onnx --convert-to trt -o model.engine ${flags} \\\\
        --calibration-cache calibration.cache --precision-constraints obey \\\\
        --trt-network-postprocess-script polygraphy_script.py

The names are those of the ONNX nodes. The sweep measured these layers in fp32; its option fallback_precision says in
what they are kept here. No engine was built from this file.
"""

import tensorrt as trt

${warning}FLOATING = ${names}
PLUGINS = ${plugins}
"""Of these, the ones that may support fp32 alone."""


def postprocess(network):
    """Set precision and output types of the layers; raises LookupError where the network lacks one of them."""
    if not hasattr(trt.ILayer, "precision"):
        raise RuntimeError(
            "this TensorRT has no precision of layers (11 and newer do not): build a strongly typed network from an "
            "ONNX file with Q/DQ nodes at the layers in int8 and nowhere else"
        )
    missing = set(FLOATING)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.name not in FLOATING:
            continue
        missing.discard(layer.name)
        kind = trt.float32 if layer.name in PLUGINS else ${kind}
        layer.precision = kind
        for output in range(layer.num_outputs):
            layer.set_output_type(output, kind)
    if missing:
        raise LookupError(f"the network has no layers of these names: {sorted(missing)}")
'''


def to_script(mixed: MixedPrecision, nodes: Collection[str]) -> bytes:
    """The script. ``nodes``: the node names that stand in the ONNX file once."""
    found = addressed(mixed.floating, nodes)
    warning = [f"{shown(name)} is to stay in floating point, but is not here: {why}" for name, why in found.unnamed]
    plugins = addressed([each for each in mixed.floating if each.op is Operation.PLUGIN], nodes).names
    if any(each.op is Operation.PLUGIN for each in mixed.layers):
        warning.append("The model has plugins: give polygraphy their library too, with --plugins <library>.")
    half = mixed.fallback_precision is Precision.FP16
    return filled(
        TEMPLATE,
        precision=mixed.fallback_precision.value,
        flags="--int8 --fp16" if half else "--int8",
        kind="trt.float16" if half else "trt.float32",
        warning=comments(warning),
        names=listed(found.names),
        plugins=listed(plugins),
    )
