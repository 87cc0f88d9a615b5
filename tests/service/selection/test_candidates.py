from typing import Any

import pytest

from service.domain.costs import CostName, Group
from service.domain.results import Interval
from service.domain.settings import SelectionSettings
from service.selection.candidates import candidates
from service.selection.groups import Pins, merged_groups
from service.selection.problem import Problem, formulate
from service.selection.ranking import Ranked
from tests.service.selection.test_problem import LOSSES, MODEL, NAMES, prices

RANKING = tuple(Ranked(layer_id=each, significant=each != "a") for each in "dcba")
SENSITIVITIES = {
    layer: Interval(value=loss / 10, low=None, high=None, method="t", samples=9) for layer, loss in LOSSES.items()
}


def made(*, pins: Pins = Pins(), groups: tuple[Group, ...] = (), cost: CostName = CostName.LAYERS) -> Problem:
    names = NAMES | {"e": "e"}
    return formulate(merged_groups(names, groups, pins), prices(MODEL, cost), LOSSES | {"e": 0.0})


def lists(problem: Problem, **settings: Any) -> list[str]:
    found = candidates(problem, SelectionSettings(**settings), RANKING, SENSITIVITIES)
    return ["".join(each.fallback) for each in found]


def test_the_threshold_proposes_what_is_surely_above_it() -> None:
    assert lists(made(), algorithm="threshold", threshold=0.15) == ["bcd"]
    assert lists(made(), algorithm="threshold", threshold=0.0) == ["bcd"]


@pytest.mark.parametrize(("k", "expected"), [(0, ""), (2, "cd"), (9, "abcd")])
def test_the_k_most_sensitive_are_proposed(k: int, expected: str) -> None:
    assert lists(made(), algorithm="top_k", top_k=k) == [expected]


def test_a_group_falls_back_as_a_whole_and_pins_hold() -> None:
    group = Group(name="ce", layers=("c", "e"), reason="concat")
    problem = made(groups=(group,), pins=Pins(always_int8=("d",), never_int8=("b",)))
    assert lists(problem, algorithm="top_k", top_k=2) == ["bce"]


def test_greedy_proposes_the_prefixes_of_the_ranking() -> None:
    assert lists(made(), algorithm="greedy") == ["", "d", "cd", "bcd", "abcd"]


def test_what_has_a_curve_of_its_own_goes_by_no_order_of_layers() -> None:
    with pytest.raises(ValueError, match="optimal goes by no order"):
        lists(made(), algorithm="optimal")
