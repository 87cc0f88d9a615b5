"""Walks ONNX graphs, the bodies of If, Loop and Scan included."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import onnx

NOTES = {"doc_string", "metadata_props"}


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a control-flow node holds."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, each followed by those of its inner graphs."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from all_nodes(inner)


def rename_reads(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and the bodies of its control flow, read other tensors. ``names``: tensor → what to read for it."""
    for index, name in enumerate(node.input):
        node.input[index] = names.get(name, name)
    for inner in inner_graphs(node):
        for each in inner.node:
            rename_reads(each, names)
        for output in inner.output:  # a body may give out what it only reads
            output.name = names.get(output.name, output.name)


def count_readers(graph: onnx.GraphProto) -> Counter[str]:
    """How often each tensor is read: by nodes, by the bodies of control flow, as an output of the graph."""
    readers = Counter(name for node in all_nodes(graph) for name in node.input if name)
    readers.update(each.name for each in graph.output)
    for node in all_nodes(graph):
        for inner in inner_graphs(node):
            readers.update(each.name for each in inner.output)
    return readers


def all_names(graph: onnx.GraphProto) -> set[str]:
    """Every name of a tensor or node in use."""
    names = {each.name for each in (*graph.input, *graph.output, *graph.initializer)}
    for node in all_nodes(graph):
        names.update((node.name, *node.input, *node.output))
        for inner in inner_graphs(node):
            names.update(each.name for each in (*inner.input, *inner.initializer))
    return names


def all_tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """The constant tensors of a protobuf message, wherever in it they are."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from all_tensors(each)


def undecodable(message: Any) -> Iterator[bytes]:
    """The names in a protobuf message that are not UTF-8, which come as bytes; notes for people are passed over."""
    for field, value in message.ListFields():
        if field.name in NOTES or field.name == "raw_data":
            continue
        if field.type == field.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            yield from (each for each in texts if isinstance(each, bytes))
        elif field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from undecodable(each)
