"""Operators outside the standard domains: which nodes are such plugins, and how an operator is called."""

from collections.abc import Iterator

import onnx

from workers.models.onnx_walk import all_nodes

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Those that ONNX and ONNX Runtime define."""


def is_plugin(node: onnx.NodeProto) -> bool:
    """Whether the operator is of a domain that neither ONNX nor ONNX Runtime defines."""
    return node.domain not in KNOWN_DOMAINS


def operator_of(node: onnx.NodeProto) -> str:
    """The operator's name; with its domain where that is a plugin's, so that its ``Conv`` is taken for no Conv."""
    return f"{node.domain}::{node.op_type}" if is_plugin(node) else str(node.op_type)


def plugins_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The plugin nodes, those in the bodies of control flow included."""
    return (node for node in all_nodes(graph) if is_plugin(node))
