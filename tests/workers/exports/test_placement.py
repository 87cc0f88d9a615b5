"""Which tensors need one scale."""

import pytest

from workers.exports.placement import Reader, Step, same_scale_groups
from workers.exports.scales import QuantizedEdge, Rescaled, plan_scales


def step(name: str, op: str, inputs: str, outputs: str) -> Step:
    return Step(name, op, tuple(inputs.split()), tuple(outputs.split()))


JOIN = [step("a", "Conv", "x", "p"), step("cat", "Concat", "p q", "r"), step("c", "Conv", "r", "y")]


def groups(steps: list[Step], quantized: str, given_out: str = "y") -> set[frozenset[str]]:
    reads = [Reader(*each.split(".")) for each in quantized.split()]
    return set(same_scale_groups(steps, reads, given_out.split()))


def test_the_branches_of_a_join_share_a_scale_with_its_result() -> None:
    assert groups(JOIN, "c.r") == {frozenset("pqr")}


@pytest.mark.parametrize(
    ("steps", "quantized", "given_out"),
    [
        (JOIN, "", "y"),
        (JOIN, "c.r", "y r"),
        ([*JOIN, step("f", "Relu", "r", "z")], "c.r", "y z"),
        ([step("a", "Conv", "x", "p"), step("cat", "Add", "p q", "r"), step("c", "Conv", "r", "y")], "c.r", "y"),
    ],
    ids=["a reader in floating point", "given out", "one reader of two", "an Add computes"],
)
def test_nothing_is_shared_where_the_result_is_needed_in_floating_point(
    steps: list[Step], quantized: str, given_out: str
) -> None:
    assert groups(steps, quantized, given_out) == set()


def test_a_scale_is_shared_through_joins_of_joins_and_reshapes() -> None:
    steps = [
        step("cat1", "Concat", "a b", "c"),
        step("pool", "MaxPool", "c", "d"),
        step("flat", "Reshape", "d", "e"),
        step("cat2", "Concat", "e f", "g"),
        step("mm", "MatMul", "g w", "y"),
        step("other", "MaxPool", "m", "n"),
        step("end", "Conv", "n", "z"),
    ]
    assert groups(steps, "mm.g end.n", "y z") == {frozenset("abcdefg"), frozenset("mn")}


def test_the_largest_range_of_a_group_is_that_of_all_and_the_change_is_named() -> None:
    edges = [QuantizedEdge("c:0", "c", "r", 2.0), QuantizedEdge("d:0", "d", "p", 3.0)]
    steps = [*JOIN, step("d", "Conv", "p", "z")]
    plan = plan_scales(steps, edges, {"y", "z"}, unify=True)
    assert plan.amax == {"r": 3.0, "p": 3.0}
    assert plan.rescaled == (Rescaled("c:0", "r", 3.0, 2.0, ("p",)),)
    assert plan_scales(steps, edges, {"y", "z"}, unify=False).amax == {"r": 2.0, "p": 3.0}


def test_two_ranges_of_one_tensor_become_one() -> None:
    edges = [QuantizedEdge("c:0", "c", "r", 2.0), QuantizedEdge("d:0", "d", "r", 3.0)]
    plan = plan_scales([], edges, set(), unify=True)
    assert plan.amax == {"r": 3.0} == plan_scales([], edges[::-1], set(), unify=True).amax
    assert plan.rescaled == (Rescaled("c:0", "r", 3.0, 2.0, ("r",)),)
