"""Maps what TensorRT calls its layers to the ONNX nodes that they come from."""

import re

SEPARATORS = re.compile("[\x1e\x1f]")
HEAD = "[ONNX Layer: "


def onnx_nodes(name: str, metadata: str) -> frozenset[str]:
    """The ONNX nodes of one layer, of a network or of an engine.

    ``metadata`` lists them exactly (``[ONNX Layer: /blk/Conv]`` items between control characters 0x1F and 0x1E);
    without it the name does, fused ones joined by `` + ``.
    """
    items = [each.strip() for each in SEPARATORS.split(metadata)]
    listed = {each.removeprefix(HEAD).removesuffix("]") for each in items if each.startswith(HEAD)}
    return frozenset(listed or {each.strip() for each in name.split(" + ") if each.strip()})
