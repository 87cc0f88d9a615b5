"""Which quantized tensors must share one scale, so that no engine puts a requantize kernel between them.

An engine moves a quantizer up over operations that only move or choose values (Concat, MaxPool, reshapes) and runs
those in int8. Where what they read and what they give out have different scales, it must requantize instead
(TensorRT developer guide, "Q/DQ placement recommendations"). A pure function over names: no model file, no weights.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

JOINS = frozenset({"Concat", "MaxPool"})
MOVES = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"})


@dataclass(frozen=True)
class Step:
    """One operation: the tensors that it reads as data (constants left out) and those that it makes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """One place where a tensor is read: the step that reads it, and the tensor."""

    step: str
    tensor: str


def same_scale_groups(
    steps: Sequence[Step], quantized: Collection[Reader], given_out: Collection[str]
) -> list[frozenset[str]]:
    """Groups of two tensors or more that need one scale. ``steps``: in topological order.

    ``quantized``: the reads that see int8; ``given_out``: outputs of the graph, which stay in floating point. A step
    passes a quantizer up only where all the readers of its output are quantized, or pass theirs up.
    """
    readers: dict[str, list[Step]] = {}
    for step in steps:
        for tensor in dict.fromkeys(step.inputs):
            readers.setdefault(tensor, []).append(step)
    reads = frozenset(quantized)
    passed_up: set[str] = set()  # steps that run in int8
    parents: dict[str, str] = {}
    for step in reversed(steps):
        if step.op not in JOINS | MOVES or not step.outputs:
            continue
        made = step.outputs[0]
        later = readers.get(made, [])
        wanted = [Reader(each.name, made) in reads or each.name in passed_up for each in later]
        if made in given_out or not wanted or not all(wanted):
            continue
        passed_up.add(step.name)
        for tensor in step.inputs:
            parents[_root(parents, tensor)] = _root(parents, made)
    return _groups(parents)


def _root(parents: Mapping[str, str], tensor: str) -> str:
    while parents.get(tensor, tensor) != tensor:
        tensor = parents[tensor]
    return tensor


def _groups(parents: Mapping[str, str]) -> list[frozenset[str]]:
    members: dict[str, set[str]] = {}
    for tensor in parents:
        root = _root(parents, tensor)
        members.setdefault(root, {root}).add(tensor)
    return [frozenset(each) for each in members.values() if len(each) > 1]
