import numpy as np
import pytest

from service.domain.costs import Boundary, CostModel, CostName, Group, LayerCost
from service.domain.results import Interaction
from service.selection.costs import prices
from service.selection.groups import Pins, merged_groups
from service.selection.problem import GroupInteraction, Problem, formulate

NAMES = dict(zip("abcd", "abcd", strict=True))
MODEL = CostModel(
    layers=tuple(LayerCost(layer=each, macs=100, weights=10) for each in "abcde"),
    boundaries=tuple(Boundary(source=one, target=other, elements=7) for one, other in ("ab", "bc", "cd", "de")),
)
LOSSES = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}


def pair(one: str, other: str, shrunk: float) -> Interaction:
    return Interaction(layers=(one, other), measure="mse", value=9.0, standard_error=1.0, shrunk=shrunk)


def made(name: CostName = CostName.MACS) -> Problem:
    """b and c share a precision; e is not decided about."""
    groups = merged_groups(NAMES, [Group(name="bc", layers=("b", "c"), reason="concat")], Pins(never_int8=("d",)))
    pairs = [pair("b", "c", 0.5), pair("a", "b", -0.25), pair("c", "a", -0.5), pair("a", "d", 0.0), pair("a", "e", 3.0)]
    return formulate(groups, prices(MODEL, name), LOSSES, pairs)


def test_a_groups_layers_add_up_and_their_interactions_with_them() -> None:
    found = made()
    assert [each.layers for each in found.groups] == [("a",), ("b", "c"), ("d",), ()]
    assert found.losses.tolist() == [1.0, 6.5, 8.0, 0.0]
    assert found.costs.tolist() == [100, 200, 100, 0]
    assert found.interactions == (GroupInteraction(0, 1, -0.75),)


@pytest.mark.parametrize("name", [CostName.LAYERS, CostName.MACS, CostName.WEIGHT_BYTES, CostName.BOPS])
@pytest.mark.parametrize("layers", ["d", "ad", "bcd", "abcd"])
def test_its_costs_are_those_of_the_cost_model(name: CostName, layers: str) -> None:
    found = made(name)
    expected = prices(MODEL, name).of([*layers, "e"])
    assert found.cost(found.configuration(layers)) == expected
    assert found.layers(found.configuration(layers)) == tuple(layers)


def test_a_layer_that_is_not_decided_about_is_in_floating_point_and_its_boundary_costs() -> None:
    found = made()
    assert found.cost(found.configuration("abcd")) == 500
    groups = merged_groups(NAMES, ())
    free = formulate(groups, prices(MODEL, CostName.MACS), LOSSES)
    assert free.cost(free.all_int8()) == 100 + 7


def test_the_loss_is_that_of_what_is_in_int8_and_never_negative() -> None:
    found = made()
    assert found.loss(found.configuration("d")) == 1.0 + 6.5 - 0.75
    assert found.loss(found.configuration("abcd")) == 0
    cancel = formulate(
        merged_groups({"a": "a", "b": "b"}, ()), prices(MODEL, CostName.LAYERS), LOSSES, [pair("a", "b", -9)]
    )
    assert cancel.loss(cancel.all_int8()) == 0


def test_ends_hold_the_pins() -> None:
    found = made()
    assert found.all_int8().tolist() == [False, False, True, True]
    assert found.all_floating().all()
    assert found.fixed == {2: True, 3: True}


def test_a_split_group_and_a_loss_that_is_none_are_refused() -> None:
    with pytest.raises(ValueError, match="b, c share one precision"):
        made().configuration("ab")
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="losses: c has"):
            formulate(merged_groups(NAMES, ()), prices(MODEL, CostName.LAYERS), LOSSES | {"c": wrong})


def test_configurations_are_boolean_vectors_over_the_groups() -> None:
    assert made().configuration("bcd").dtype == np.bool_
