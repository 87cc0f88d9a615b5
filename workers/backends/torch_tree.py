"""Runs the variant tree over a torch graph with quantizers in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import or_
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from service.domain.errors import first_line
from workers.backends.torch_calls import Call, call_of
from workers.backends.torch_stacking import Stacking
from workers.engine.variant_tree import Branch, Operation, Step, Value, VariantTree
from workers.models.torch_costs import sizes

Inputs = Mapping[str, torch.Tensor]
"""Placeholder → tensor, (samples, ...)."""

Outputs = tuple[torch.Tensor, ...]

ERRORS = (RuntimeError, ValueError, TypeError, IndexError, MemoryError)

STACKED_ROWS = {"cpu": 64, "cuda": 512}
"""Variants are stacked up to about so many samples in a call: more gain nothing (docs/benchmarks.md)."""

STACKED_TOLERANCE = 1e-4
"""Of the largest output: what another order of sums may change, and far below what mixed samples do."""


@dataclass(frozen=True)
class Failed:
    """Stands in place of a tensor that could not be computed."""

    reason: str


class TorchTree:
    """The graph as calls, and the plans that run them. Quantizers must be enabled before ``run``."""

    def __init__(self, module: fx.GraphModule, layer_of: Mapping[fx.Node, int], device: torch.device) -> None:
        self._nodes = [node for node in module.graph.nodes if node.op != "output"]
        self._position = {node: index for index, node in enumerate(self._nodes)}
        self._stacking = Stacking(self._nodes)
        self._calls = [None if each.op == "placeholder" else call_of(module, each) for each in self._nodes]
        self._operands = [tuple(self._position[each] for each in node.all_input_nodes) for node in self._nodes]
        operations = [
            Operation(
                self._operands[index],
                layer=layer_of.get(node),
                size=_bytes_of_sample(node),
                stackable=node in self._stacking.stackable,
            )
            for index, node in enumerate(self._nodes)
        ]
        (result,) = module.graph.output_node().args
        leaves = result if isinstance(result, list | tuple) else (result,)
        outputs = [each for each in leaves if isinstance(each, fx.Node) and _is_tensor(each)]
        self._tree = VariantTree(operations, [self._position[each] for each in outputs])
        self._rows = STACKED_ROWS[device.type]
        self._stack_tried = False
        self._plans: dict[tuple[tuple[int, ...], int], list[Branch]] = {}
        self.live_bytes = self._tree.live_size()
        """Of one sample's tensors, the most that a plain run holds at once."""

    @property
    def not_stacked(self) -> str | None:
        """Why variants cannot share calls; None where they can."""
        return self._stacking.reason

    def run(self, inputs: Inputs, variants: Sequence[int]) -> Iterator[tuple[int, Outputs | Failed]]:
        """Each variant's position in ``variants`` with its outputs, in the tree's order.

        ``variants``: sets of int8 layers as bits. Running out of memory is raised, other errors are given as Failed.
        """
        yield from self._run(inputs, variants, self._stack(inputs, variants))

    def _run(self, inputs: Inputs, variants: Sequence[int], stack: int) -> Iterator[tuple[int, Outputs | Failed]]:
        run = _Run(self._nodes, self._calls, self._stacking, inputs)
        for branch in self._plan(variants, stack):
            with torch.inference_mode():
                found = run.branch(branch)
            yield from zip(branch.variants, found, strict=True)

    def _plan(self, variants: Sequence[int], stack: int) -> list[Branch]:
        key = (tuple(variants), stack)
        if key not in self._plans:
            # a shard asks for the same plan for each of its batches, the last of them perhaps shorter
            if len(self._plans) > 2:
                self._plans.clear()
            room = (1 + stack) * self.live_bytes
            self._plans[key] = self._tree.plan(variants, stack=stack, room=room)
        return self._plans[key]

    def _stack(self, inputs: Inputs, variants: Sequence[int]) -> int:
        samples = min((len(each) for each in inputs.values() if each.ndim), default=0)
        stack = min(self._rows // max(1, samples), len(variants))
        if stack < 2 or self._stacking.reason is not None:
            return 1
        if not self._stack_tried:
            self._stack_tried = True
            self._try_stacking(inputs, variants)
        return stack if self._stacking.reason is None else 1

    def _try_stacking(self, inputs: Inputs, variants: Sequence[int]) -> None:
        """Run one layer in int8 beside fp32, stacked and alone: what mixes samples shows."""
        every = reduce(or_, variants)
        pair = [0, every & -every]
        alone, stacked = dict(self._run(inputs, pair, 1)), dict(self._run(inputs, pair, 2))
        for variant, expected in alone.items():
            found = stacked[variant]
            if isinstance(expected, Failed) or isinstance(found, Failed) or not _close(found, expected):
                self._stacking.reason = "the model mixes samples"


class _Run:
    """The values of one batch while its branches run."""

    def __init__(
        self, nodes: Sequence[fx.Node], calls: Sequence[Call | None], stacking: Stacking, inputs: Inputs
    ) -> None:
        self._nodes, self._calls, self._stacking, self._inputs = nodes, calls, stacking, inputs
        self._values: dict[Value, Any] = {}
        self._wholes: dict[Value, tuple[Any, int, int]] = {}
        """Stacked values: the tensor that holds them, at which place of how many."""
        self._sizes: dict[int, dict[fx.Node, int]] = {}
        self._any_failed = False

    def branch(self, branch: Branch) -> list[Outputs | Failed]:
        """The outputs of the branch's variants."""
        for step, frees in zip(branch.steps, branch.frees, strict=True):
            if len(step.results) > 1 and not self._any_failed:
                self._stacked(step)
            else:
                for result, operands in zip(step.results, step.operands, strict=True):
                    self._alone(step.operation, result, operands)
            self._free(frees)
        found = [self._outputs(each) for each in branch.outputs]
        self._free(branch.done)
        for each in self._wholes:
            # it waits for other branches, and need not keep its siblings' rows
            self._values[each] = pytree.tree_map(torch.clone, self._values[each])
        self._wholes.clear()
        return found

    def _outputs(self, wanted: Sequence[Value]) -> Outputs | Failed:
        values = tuple(self._values[each] for each in wanted)
        return next((each for each in values if isinstance(each, Failed)), values)

    def _free(self, values: Sequence[Value]) -> None:
        for each in values:
            del self._values[each]
            self._wholes.pop(each, None)

    def _alone(self, position: int, result: Value, operands: Sequence[Value]) -> None:
        call = self._calls[position]
        if call is None:
            self._values[result] = self._inputs.get(str(self._nodes[position].target))
            return
        values = [self._values[each] for each in operands]
        if self._any_failed:
            failed = next((each for each in values if isinstance(each, Failed)), None)
            if failed is not None:
                self._values[result] = failed
                return
        try:
            self._values[result] = call(values)
        except ERRORS as error:
            if is_out_of_memory(error):
                raise
            self._any_failed = True
            self._values[result] = Failed(f"{type(error).__name__}: {first_line(error)}")

    def _stacked(self, step: Step) -> None:
        call, count = self._calls[step.operation], len(step.results)
        assert call is not None
        try:
            whole = call([self._gather(same, count) for same in zip(*step.operands, strict=True)])
            parts = _parts(whole, count)
        except ERRORS as error:
            if is_out_of_memory(error):
                raise
            for result, operands in zip(step.results, step.operands, strict=True):
                self._alone(step.operation, result, operands)
            return
        for index, (result, part) in enumerate(zip(step.results, parts, strict=True)):
            self._values[result] = part
            self._wholes[result] = (whole, index, count)

    def _gather(self, values: Sequence[Value], count: int) -> Any:
        """One operand for all: as it stands where nothing but the stacked rows changed, else joined anew."""
        node = self._nodes[values[0][0]]
        if self._stacking.is_size(node):
            return self._sizes_of(count)[node]
        if node not in self._stacking.stackable:
            return self._values[values[0]]
        places = [self._wholes.get(each) for each in values]
        first = places[0]
        if first is not None:
            whole, start, parts = first
            if all(
                each is not None and each[0] is whole and each[1] == start + offset
                for offset, each in enumerate(places)
            ):
                return whole if count == parts else _rows(whole, start, count, parts)
        found = [self._values[each] for each in values]
        if isinstance(found[0], list | tuple):
            return tuple(torch.cat(same) for same in zip(*found, strict=True))
        return torch.cat(found)

    def _sizes_of(self, count: int) -> dict[fx.Node, int]:
        if count not in self._sizes:
            self._sizes[count] = self._stacking.sizes(self._inputs, count)
        return self._sizes[count]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, has no room for a tensor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # the machine's memory; pages that the device reads
    return any(each in str(error) for each in ("can't allocate memory", "CUDA error: out of memory"))


def _parts(whole: Any, count: int) -> Sequence[Any]:
    if isinstance(whole, list | tuple):
        return list(zip(*(_parts(each, count) for each in whole), strict=True))
    if len(whole) % count:
        raise ValueError("the first axis is not the sample")
    return torch.chunk(whole, count)


def _rows(whole: Any, start: int, count: int, parts: int) -> Any:
    if isinstance(whole, list | tuple):
        return tuple(_rows(each, start, count, parts) for each in whole)
    size = len(whole) // parts
    return whole[start * size : (start + count) * size]


def _close(found: Outputs, expected: Outputs) -> bool:
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return False
        if other.is_floating_point() and other.numel():
            furthest = (one.float() - other.float()).abs().nan_to_num().max()
            if furthest > STACKED_TOLERANCE * other.float().abs().nan_to_num().max():
                return False
    return True


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _bytes_of_sample(node: fx.Node) -> int:
    """Of a node's result; 0 for what the model holds anyway, and where the shape is unknown."""
    shape = sizes(node)
    if node.op in ("get_attr", "placeholder") or shape is None:
        return 0
    return prod(shape) * int(node.meta["val"].itemsize)
