"""The flags by which trtexec keeps layers in floating point. TensorRT 10 and older have them; TensorRT 11 has none.

How trtexec reads a list (its sampleOptions.cpp, getLayerPrecisions): it is cut at every comma, quotes or not; a pair of
single quotes then protects colons; and a star stands for any text. So names with a comma, a single quote or a star
cannot be given. A list with one of them would be refused as a whole, or would mean other layers too.
"""

import shlex
from collections.abc import Collection, Mapping

from service.domain.costs import Precision
from service.domain.layers import Operation
from workers.exports.mixed_precision import MixedPrecision
from workers.exports.onnx_nodes import addressed
from workers.exports.quoting import comments, shown

FILE = "trtexec.txt"
MARKS = ",'*"
INEXPRESSIBLE = "trtexec takes no name with a comma, a single quote, a star or a control character"
ABOUT = (
    "Flags for trtexec of TensorRT 10 and older: all layers in int8 but those named here, in the sweep's precision.",
    "The names are those of the ONNX nodes; trtexec ignores the names of fused layers (A + B) without a word.",
    "TensorRT chooses for all other layers by speed: int8 where it has a kernel, and a scale in calibration.cache.",
    "",
    "TensorRT 11 has none of these flags, and no int8 from a calibration cache: there, build a strongly typed network",
    "from an ONNX file with Q/DQ nodes at the layers in int8 and nowhere else.",
    "",
    "No TensorRT engine was built from this file: the flags follow the documentation and the source of trtexec.",
)
MEASURED = {
    Precision.FP32: "The sweep measured them in fp32; its option fallback_precision: fp16 gives flags for fp16.",
    Precision.FP16: "The sweep measured these layers in fp32, and checked mixed.onnx with them in fp16 (mixed.json).",
}

PLUGINS = [
    "",
    "The model has plugins: give trtexec their library too, with --dynamicPlugins=<library>. Those that stay in",
    "floating point are fp32 here, which each plugin of a calibrated network supports.",
]


def to_text(mixed: MixedPrecision, nodes: Collection[str]) -> bytes:
    """A command line for a POSIX shell, under comments. ``nodes``: the node names that stand in the file once."""
    found = addressed(mixed.floating, nodes)
    plugins = set(addressed([each for each in mixed.floating if each.op is Operation.PLUGIN], nodes).names)
    precision = mixed.fallback_precision
    types = {name: "fp32" if name in plugins else precision.value for name in found.names if _expressible(name)}
    inexpressible = [(name, INEXPRESSIBLE) for name in found.names if not _expressible(name)]
    about_plugins = PLUGINS if any(each.op is Operation.PLUGIN for each in mixed.layers) else []
    said = [*ABOUT, "", MEASURED[precision], *about_plugins, *_warning([*found.unnamed, *inexpressible])]
    kinds = ["--int8", "--fp16"] if precision is Precision.FP16 else ["--int8"]
    words = ["trtexec", "--onnx=model.onnx", *kinds, "--calib=calibration.cache", *_constraints(types)]
    command = " \\\n  ".join(shlex.quote(word) for word in words)
    return f"{comments(said)}{command}\n".encode()


def _expressible(name: str) -> bool:
    return name.isprintable() and not any(mark in name for mark in MARKS)


def _constraints(types: Mapping[str, str]) -> list[str]:
    if not types:
        return []
    pairs = ",".join(f"{_quoted(name)}:{kind}" for name, kind in types.items())
    return ["--precisionConstraints=obey", f"--layerPrecisions={pairs}", f"--layerOutputTypes={pairs}"]


def _quoted(name: str) -> str:
    return f"'{name}'" if ":" in name else name


def _warning(absent: list[tuple[str, str]]) -> list[str]:
    if not absent:
        return []
    what = "NOT IN THE FLAGS, though they are to stay in floating point (polygraphy_script.py takes any name):"
    return ["", what, *(f"  {shown(name)}: {reason}" for name, reason in absent)]
