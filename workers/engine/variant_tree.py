"""The variant tree: which operations to run, in which order, so that variants share all that they have in common.

A value is the result of one operation for a given set of int8 layers upstream of it. Variants that agree on that set
agree on the value, bit for bit, so it is computed once for all of them. The order is depth first: at every layer where
the variants still together differ, the smaller side runs to its end before the larger one goes on. So the values that
wait at any time are those alive at the splits on the way (at most log2 of the number of variants of them; one for
one-on and one-off), not a cache of every activation.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter


@dataclass(frozen=True)
class Operation:
    """One operation of a model. ``inputs``: positions of earlier operations whose results it takes.

    ``layer``: it quantizes an operand of the layer with this number, and is left out where that layer is not in int8.
    ``size``: of its result, in any unit that is the same for all. ``stackable``: its result's first axis is the sample.
    """

    inputs: tuple[int, ...]
    layer: int | None = None
    size: int = 0
    stackable: bool = False


Value = tuple[int, int]
"""The position of an operation, and the set of int8 layers upstream of it as the bits of an int."""


@dataclass(frozen=True)
class Step:
    """Run one operation for several values at once. ``operands``: for each of ``results``, the values it takes."""

    operation: int
    results: tuple[Value, ...]
    operands: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Branch:
    """Variants that run together. ``outputs``: for each of ``variants``, the values wanted.

    ``frees``: for each step, the values that nothing needs after it. Those that are wanted are freed with the branch.
    """

    variants: tuple[int, ...]
    steps: tuple[Step, ...]
    frees: tuple[tuple[Value, ...], ...]
    outputs: tuple[tuple[Value, ...], ...]
    done: tuple[Value, ...]


def depth_first(variants: Sequence[int], layers: Sequence[int]) -> list[int]:
    """The variants' positions in the order in which the tree's leaves are reached.

    ``variants``: sets of int8 layers as bits; ``layers``: the numbers of the layers, in topological order.
    """
    order: list[int] = []

    def visit(together: list[int], depth: int) -> None:
        while depth < len(layers) and len(together) > 1:
            bit = 1 << layers[depth]
            sides = [[each for each in together if bool(variants[each] & bit) is side] for side in (True, False)]
            depth += 1
            if all(sides):
                smaller, together = sorted(sides, key=len)
                visit(smaller, depth)
        order.extend(together)

    visit(list(range(len(variants))), 0)
    return order


class VariantTree:
    """Plans runs over one model. ``wanted``: the operations whose results are the model's outputs."""

    def __init__(self, operations: Sequence[Operation], wanted: Sequence[int]) -> None:
        self._operations = operations
        self._wanted = tuple(wanted)
        self._upstream: list[int] = []
        self._layers: list[int] = []
        for each in operations:
            upstream = 0 if each.layer is None else 1 << each.layer
            for position in each.inputs:
                upstream |= self._upstream[position]
            self._upstream.append(upstream)
            if each.layer is not None and each.layer not in self._layers:
                self._layers.append(each.layer)

        self._downstream = [0] * len(operations)
        for position in reversed(range(len(operations))):
            each = operations[position]
            ahead = self._downstream[position] | (0 if each.layer is None else 1 << each.layer)
            for operand in each.inputs:
                self._downstream[operand] |= ahead

    def live_size(self) -> int:
        """The largest sum of sizes that is alive at once while one variant runs."""
        (branch,) = self.plan([0])
        live = largest = 0
        for step, frees in zip(branch.steps, branch.frees, strict=True):
            live += self._size(step.results)
            largest = max(largest, live)
            live -= self._size(frees)
        return largest

    def plan(self, variants: Sequence[int], *, stack: int = 1, room: int | None = None) -> list[Branch]:
        """Branches in the order in which to run them, every variant in one of them.

        ``stack``: so many variants run together, their common operations in one call. ``room``: values that wait for
        other branches are dropped, the last needed first, and computed again where their sizes would exceed it.
        """
        order = depth_first(variants, self._layers)
        outputs = {each: tuple(self._value(op, variants[each]) for op in self._wanted) for each in order}
        waiting = _Waiting(self._operations, room, self._demand(outputs.values()))
        sharing = _Sharing(variants)
        planned = []
        for start in range(0, len(order), stack):
            group = tuple(order[start : start + stack])
            wanted = [outputs[each] for each in group]
            planned.append((group, self._steps(wanted, waiting, sharing)))
        return _with_frees(planned, outputs)

    def _value(self, position: int, int8: int) -> Value:
        operation = self._operations[position]
        while operation.layer is not None and not int8 >> operation.layer & 1:
            position = operation.inputs[0]
            operation = self._operations[position]
        return position, int8 & self._upstream[position]

    def _operands(self, value: Value) -> tuple[Value, ...]:
        position, int8 = value
        return tuple(self._value(each, int8) for each in self._operations[position].inputs)

    def _demand(self, outputs: Iterable[tuple[Value, ...]]) -> Counter[Value]:
        """How many values are made from each value; an output counts once for each variant that gives it."""
        demand: Counter[Value] = Counter()
        pending: list[Value] = []

        def count(values: Iterable[Value]) -> None:
            for value in values:
                demand[value] += 1
                if demand[value] == 1:
                    pending.append(value)

        for wanted in outputs:
            count(wanted)
        while pending:
            count(set(self._operands(pending.pop())))
        return demand

    def _steps(self, wanted: Sequence[tuple[Value, ...]], waiting: "_Waiting", sharing: "_Sharing") -> list[Step]:
        missing: set[Value] = set()
        pending = [value for values in wanted for value in values]
        while pending:
            value = pending.pop()
            if value not in missing and value not in waiting:
                missing.add(value)
                pending.extend(self._operands(value))
        steps = [
            step for position, values in _by_position(missing) for step in self._stacked(position, values, sharing)
        ]
        waiting.run(steps, wanted)
        return steps

    def _stacked(self, position: int, values: Sequence[Value], sharing: "_Sharing") -> Iterator[Step]:
        """One step for the values that can be stacked: weights and sizes among their operands must be the same.

        What a quantizer will see runs alone: it must be bit for bit what a plain run gives, or it may round to another
        level. (Kernels sum in another order where there are more rows.)
        """
        together: dict[object, list[Value]] = {}
        for value in values:
            variant = sharing.only_variant(value[1], self._upstream[position])
            key: object = value
            unquantized = variant is not None and not variant & self._downstream[position]
            if unquantized and self._operations[position].stackable:
                key = tuple(each for each in self._operands(value) if not self._operations[each[0]].stackable)
            together.setdefault(key, []).append(value)
        for each in together.values():
            yield Step(position, tuple(each), tuple(self._operands(value) for value in each))

    def _size(self, values: Iterable[Value]) -> int:
        return sum(self._operations[position].size for position, _ in values)


class _Sharing:
    """Finds the variants that have a value in common."""

    def __init__(self, variants: Iterable[int]) -> None:
        self._variants = set(variants)
        self._found: dict[int, dict[int, int | None]] = {}

    def only_variant(self, int8: int, upstream: int) -> int | None:
        """The one variant that has exactly these of the layers upstream in int8; None where there are several."""
        found = self._found.get(upstream)
        if found is None:
            found = self._found[upstream] = {}
            for variant in self._variants:
                shared = variant & upstream
                found[shared] = None if shared in found else variant
        return found[int8]


class _Waiting:
    """Simulates which values are held while branches run, and drops some where there is no room for them."""

    def __init__(self, operations: Sequence[Operation], room: int | None, demand: Counter[Value]) -> None:
        self._operations = operations
        self._room = room
        self._demand = demand
        self._made: set[Value] = set()
        self._held: set[Value] = set()
        self._size = 0

    def __contains__(self, value: Value) -> bool:
        return value in self._held

    def run(self, steps: Sequence[Step], wanted: Sequence[tuple[Value, ...]]) -> None:
        """Hold what the steps make for as long as this branch or a later one needs it."""
        needed = Counter(value for values in wanted for value in values)
        needed.update(value for step in steps for values in step.operands for value in set(values))
        for step in steps:
            for result, operands in zip(step.results, step.operands, strict=True):
                self._held.add(result)
                self._size += self._operations[result[0]].size
                self._use(set(operands), needed, first=result not in self._made)
                self._made.add(result)
            self._make_room(needed)
        for values in wanted:
            self._use(values, needed, first=True)

    def _use(self, values: Iterable[Value], needed: Counter[Value], *, first: bool) -> None:
        for value in values:
            needed[value] -= 1
            if first:
                self._demand[value] -= 1
            if needed[value] <= 0 and self._demand[value] <= 0:
                self._drop(value)

    def _make_room(self, needed: Counter[Value]) -> None:
        if self._room is None or self._size <= self._room:
            return
        for value in sorted(self._held, reverse=True):
            if needed[value] <= 0:
                self._drop(value)
                if self._size <= self._room:
                    return

    def _drop(self, value: Value) -> None:
        if value in self._held:
            self._held.remove(value)
            self._size -= self._operations[value[0]].size


def _by_position(values: Iterable[Value]) -> Iterator[tuple[int, list[Value]]]:
    for position, same in groupby(sorted(values), key=itemgetter(0)):
        yield position, list(same)


def _with_frees(
    planned: Sequence[tuple[tuple[int, ...], list[Step]]], outputs: Mapping[int, tuple[Value, ...]]
) -> list[Branch]:
    """Each value is freed at the last use of what was computed, seen from the end."""
    branches: list[Branch] = []
    later: set[Value] = set()
    for variants, steps in reversed(planned):
        wanted = tuple(outputs[each] for each in variants)
        done = tuple(dict.fromkeys(value for values in wanted for value in values if value not in later))
        later.update(done)
        frees: list[tuple[Value, ...]] = []
        for step in reversed(steps):
            used = dict.fromkeys(value for values in step.operands for value in values)
            last = tuple(value for value in used if value not in later)
            frees.append(last)
            later.update(last)
            later.difference_update(step.results)
        branches.append(Branch(variants, tuple(steps), tuple(reversed(frees)), wanted, done))
    return branches[::-1]
