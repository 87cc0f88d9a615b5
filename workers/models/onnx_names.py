"""Names of ONNX nodes: unique ones for all, and the module path that the exporter noted."""

import ast
from collections import Counter

import onnx

SCOPES = "pkg.torch.onnx.name_scopes"
LONGEST_SCOPES = 10_000


def name_nodes(graph: onnx.GraphProto) -> None:
    """Name nodes without a name, or with one that several have, ``<op type>_<index>``."""
    seen = Counter(node.name for node in graph.node)
    taken = set(seen)
    for index, node in enumerate(graph.node):
        if node.name and seen[node.name] == 1:
            continue
        name = f"{node.op_type}_{index}"
        while name in taken:
            name += "_"
        taken.add(name)
        node.name = name


def module_scope(node: onnx.NodeProto) -> str | None:
    """The module path that the exporter noted ("" for the top); None where it noted nothing readable."""
    text = next((each.value for each in node.metadata_props if each.key == SCOPES), None)
    if text is None or len(text) > LONGEST_SCOPES:
        return None
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(scopes, list) or len(scopes) < 2 or not all(isinstance(each, str) for each in scopes):
        return None
    return str(scopes[-2])


def fresh_prefix(taken: set[str], wanted: str) -> str:
    """``wanted``, lengthened until no name in use begins with it."""
    while any(name.startswith(wanted) for name in taken):
        wanted = f"_{wanted}"
    return wanted
