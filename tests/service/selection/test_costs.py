import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.costs import Boundary, CostModel, CostName, LayerCost, Precision
from service.domain.errors import InvalidInput
from service.domain.results import Interval
from service.selection.costs import prices


def seconds(value: float) -> Interval:
    return Interval(value=value, low=None, high=None, method="profile", samples=10)


def layer(name: str, macs: int | None = 100, weights: int = 10) -> LayerCost:
    latency = {Precision.INT8: seconds(1.0), Precision.FP16: seconds(1.5), Precision.FP32: seconds(3.0)}
    return LayerCost(layer=name, macs=macs, weights=weights, latency=latency)


CHAIN = CostModel(
    layers=tuple(layer(each) for each in "abcd"),
    boundaries=tuple(Boundary(source=one, target=other, elements=7, latency=0.25) for one, other in ("ab", "bc", "cd")),
)


@pytest.mark.parametrize(
    ("name", "fallback", "int8", "one"),
    [
        (CostName.LAYERS, Precision.FP32, 0, 1),
        (CostName.MACS, Precision.FP32, 0, 100 + 2 * 7),
        (CostName.WEIGHT_BYTES, Precision.FP32, 40, 30 + 40),
        (CostName.WEIGHT_BYTES, Precision.FP16, 40, 30 + 20),
        (CostName.BOPS, Precision.FP32, 4 * 6400, 3 * 6400 + 100 * 32 * 32 + 2 * 7 * 8 * 32),
        (CostName.BOPS, Precision.FP16, 4 * 6400, 3 * 6400 + 100 * 16 * 16 + 2 * 7 * 8 * 16),
        (CostName.LATENCY, Precision.FP32, 4, 3 + 3.0 + 2 * 0.25),
        (CostName.LATENCY, Precision.FP16, 4, 3 + 1.5 + 2 * 0.25),
    ],
)
def test_each_cost_counts_what_it_says(name: CostName, fallback: Precision, int8: float, one: float) -> None:
    found = prices(CHAIN, name, fallback)
    assert found.of(()) == int8
    assert found.of("b") == one


@pytest.mark.parametrize("name", [CostName.MACS, CostName.BOPS, CostName.LATENCY])
def test_scattered_fallback_is_dearer_than_contiguous(name: CostName) -> None:
    found = prices(CHAIN, name)
    assert found.of("ac") > found.of("bc")


def test_a_tensor_is_converted_once_however_many_read_it() -> None:
    readers = (Boundary(source="a", target="b", elements=5), Boundary(source="a", target="c", elements=9))
    found = prices(CostModel(layers=CHAIN.layers, boundaries=readers), CostName.MACS)
    assert found.of("a") == 100 + 9
    assert found.of("bc") == 200 + 9
    assert found.of("b") == 100 + 9
    assert found.of("abc") == 300


def test_a_conversion_that_was_not_measured_counts_as_nothing_and_is_told() -> None:
    boundaries = (*CHAIN.boundaries, Boundary(source="a", target="c", elements=7))
    found = prices(CostModel(layers=CHAIN.layers, boundaries=boundaries), CostName.LATENCY)
    assert found.notes == ("the latency of 1 of 4 conversions was not measured and counts as nothing",)
    assert prices(CHAIN, CostName.LATENCY).notes == ()


def test_a_layer_whose_cost_is_not_known_is_named() -> None:
    unknown = CostModel(layers=(layer("a"), LayerCost(layer="odd", macs=None, weights=1)))
    for name in (CostName.MACS, CostName.BOPS):
        with pytest.raises(InvalidInput, match="odd, whose MACs are not known") as caught:
            prices(unknown, name)
        assert caught.value.field == "selection.cost"
    with pytest.raises(InvalidInput, match="latency of layer odd in int8 was not measured"):
        prices(unknown, CostName.LATENCY)
    assert prices(unknown, CostName.LAYERS).of(["odd"]) == 1


LISTS = st.frozensets(st.sampled_from("abcd"))


@given(LISTS, LISTS, st.sampled_from(CostName))
def test_costs_are_submodular_so_joining_lists_never_costs_extra(
    one: frozenset[str], other: frozenset[str], name: CostName
) -> None:
    found = prices(CHAIN, name)
    assert found.of(one | other) + found.of(one & other) <= found.of(one) + found.of(other) + 1e-9
