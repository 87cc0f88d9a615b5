"""The plan is checked by running it on symbols: each value is the expression that made it."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.variant_tree import Operation, Value, VariantTree, depth_first


def naive(operations: Sequence[Operation], int8: int, position: int) -> object:
    """The expression that running the whole model with these layers in int8 gives."""
    operation = operations[position]
    operands = tuple(naive(operations, int8, each) for each in operation.inputs)
    if operation.layer is not None and not int8 >> operation.layer & 1:
        return operands[0]
    return position, operands


def run(
    operations: Sequence[Operation], wanted: Sequence[int], variants: Sequence[int], **options: int
) -> tuple[dict[int, tuple[object, ...]], int, int]:
    """Every variant's outputs as the plan makes them, how many results were computed, and the largest size held."""
    held: dict[Value, object] = {}
    found: dict[int, tuple[object, ...]] = {}
    computed = largest = 0
    for branch in VariantTree(operations, wanted).plan(variants, **options):
        for step, frees in zip(branch.steps, branch.frees, strict=True):
            for result, operands in zip(step.results, step.operands, strict=True):
                assert result not in held, "computed while it was still there"
                held[result] = (step.operation, tuple(held[each] for each in operands))
                computed += 1
            largest = max(largest, sum(operations[position].size for position, _ in held))
            for value in frees:
                del held[value]
        for variant, values in zip(branch.variants, branch.outputs, strict=True):
            found[variant] = tuple(held[each] for each in values)
        for value in branch.done:
            del held[value]
    assert held == {}
    return found, computed, largest


def chain(layers: int) -> list[Operation]:
    """input, then for each layer a quantizer and an operation."""
    operations = [Operation((), size=1, stackable=True)]
    for layer in range(layers):
        last = len(operations) - 1
        operations.append(Operation((last,), layer=layer, size=1, stackable=True))
        operations.append(Operation((last + 1,), size=1, stackable=True))
    return operations


@st.composite
def models(draw: st.DrawFn) -> tuple[list[Operation], list[int], list[int]]:
    operations = [Operation((), size=1, stackable=True), Operation((), size=1)]
    layers = draw(st.integers(1, 5))
    for layer in range(layers):
        for _ in range(draw(st.integers(0, 2))):
            inputs = draw(st.lists(st.integers(0, len(operations) - 1), min_size=1, max_size=3))
            operations.append(Operation(tuple(inputs), size=draw(st.integers(0, 3)), stackable=draw(st.booleans())))
        for _ in range(draw(st.integers(1, 2))):
            operand = draw(st.integers(0, len(operations) - 1))
            operations.append(Operation((operand,), layer=layer, size=1, stackable=draw(st.booleans())))
        operations.append(Operation((len(operations) - 1, draw(st.integers(0, len(operations) - 1))), size=1))
    wanted = draw(st.lists(st.integers(0, len(operations) - 1), min_size=1, max_size=2))
    variants = draw(st.lists(st.integers(0, 2**layers - 1), min_size=1, max_size=9))
    return operations, [len(operations) - 1, *wanted], variants


@given(models(), st.integers(1, 4), st.one_of(st.none(), st.integers(0, 8)))
def test_any_list_of_variants_gives_what_running_each_alone_gives(
    model: tuple[list[Operation], list[int], list[int]], stack: int, room: int | None
) -> None:
    operations, wanted, variants = model
    options = {"stack": stack} | ({} if room is None else {"room": room})
    found, _, _ = run(operations, wanted, variants, **options)
    assert found == {
        index: tuple(naive(operations, int8, each) for each in wanted) for index, int8 in enumerate(variants)
    }


@given(models(), st.integers(1, 4))
def test_without_a_limit_nothing_is_computed_twice(
    model: tuple[list[Operation], list[int], list[int]], stack: int
) -> None:
    operations, wanted, variants = model
    made = [
        result
        for branch in VariantTree(operations, wanted).plan(variants, stack=stack)
        for step in branch.steps
        for result in step.results
    ]
    assert len(made) == len(set(made))


@pytest.mark.parametrize("mode", ["one_on", "one_off"])
@pytest.mark.parametrize("layers", [4, 16, 64])
def test_a_sweep_of_a_chain_costs_its_suffixes_and_holds_few_tensors(layers: int, mode: str) -> None:
    ones = [1 << layer for layer in range(layers)]
    every = 2**layers - 1
    variants = [0, *(ones if mode == "one_on" else [every - each for each in ones])]
    _, computed, largest = run(chain(layers), [2 * layers], variants)
    operations = layers * (layers + 1) // 2 + layers
    quantizers = computed - operations - 1
    assert quantizers <= (layers if mode == "one_on" else operations)
    assert largest <= (3 if mode == "one_on" else 4)  # fp32 and the others part at the first layer


def test_what_is_not_downstream_of_a_quantized_layer_runs_once() -> None:
    # x → a → long branch ┐
    # x → q0 → b ─────────┴ join
    operations = [Operation((), size=1), Operation((0,), size=1), Operation((1,), size=1), Operation((0,), layer=0)]
    operations += [Operation((3,), size=1), Operation((2, 4), size=1)]
    plan = VariantTree(operations, [5]).plan([0, 1])
    ran = [step.operation for branch in plan for step in branch.steps for _ in step.results]
    assert sorted(ran) == [0, 1, 2, 3, 4, 4, 5, 5]


def test_two_long_branches_side_by_side_need_room_for_one_only_when_told() -> None:
    def branch(operations: list[Operation], first: int) -> int:
        at = 0
        for layer in range(first, first + 20):
            operations.append(Operation((at,), layer=layer, size=1))
            operations.append(Operation((len(operations) - 1,), size=1))
            at = len(operations) - 1
        return at

    operations = [Operation((), size=1)]
    ends = (branch(operations, 0), branch(operations, 20))
    operations.append(Operation(ends, size=1))
    variants = [0, *(1 << layer for layer in range(40))]
    wanted = [len(operations) - 1]
    _, computed, largest = run(operations, wanted, variants)
    _, computed_again, bounded = run(operations, wanted, variants, room=6)
    assert largest > 20
    assert bounded <= 8
    assert computed_again < 1.5 * computed


def test_stacked_variants_share_a_call_but_not_across_different_weights() -> None:
    # x, w, quantized w, product, relu
    operations = [
        Operation((), stackable=True),
        Operation(()),
        Operation((1,), layer=0),
        Operation((0, 2), stackable=True),
        Operation((3,), stackable=True),
    ]
    (branch,) = VariantTree(operations, [4]).plan([0, 1], stack=2)
    widths = {step.operation: len(step.results) for step in branch.steps if step.operation >= 3}
    calls = [step.operation for step in branch.steps]
    assert calls.count(3) == 2
    assert calls.count(4) == 1
    assert widths[4] == 2


def test_what_a_quantizer_will_see_is_never_stacked() -> None:
    one_on, one_off = [0b001, 0b010, 0b100, 0b000], [0b110, 0b101, 0b011, 0b111]
    for variants in (one_on, one_off):
        (branch,) = VariantTree(chain(3), [6]).plan(variants, stack=4)
        for step in branch.steps:
            for position, int8 in step.results if len(step.results) > 1 else ():
                ahead = [layer for layer in range(3) if 2 * layer + 1 > position]
                holders = [each for each in variants if each & ((1 << 3 - len(ahead)) - 1) == int8]
                assert [each for each in holders if any(each >> layer & 1 for layer in ahead)] == []
    (branch,) = VariantTree(chain(3), [6]).plan(one_on, stack=4)
    assert max(len(step.results) for step in branch.steps) == 4


def test_the_smaller_side_of_a_split_runs_first() -> None:
    one_on = [0b000, 0b001, 0b010, 0b100]
    assert depth_first(one_on, [0, 1, 2]) == [1, 2, 3, 0]
    one_off = [0b111, 0b110, 0b101, 0b011]
    assert depth_first(one_off, [0, 1, 2]) == [1, 2, 0, 3]


def test_the_live_size_of_a_plain_run_is_known() -> None:
    assert VariantTree(chain(5), [10]).live_size() == 2
