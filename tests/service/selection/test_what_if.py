"""Another selection from the same evidence: decided by what was measured, else an estimate that says so."""

from typing import Any

import pytest

from service.domain.costs import CostModel, CostName, LayerCost
from service.domain.errors import InvalidInput
from service.domain.results import Interval, VariantScore
from service.domain.settings import Budget, SelectionSettings
from service.selection import what_if as module
from service.selection.evidence import Evidence, MeasuredList
from service.selection.ranking import Ranked
from service.selection.what_if import next_answer, what_if

DROPS = {"a": 0.08, "b": 0.04, "c": 0.01}
"""Of single layers; a list's drop is their sum, and so is its noise."""


def interval(value: float | None, half: float = 0.001) -> Interval:
    if value is None:
        return Interval(value=None, low=None, high=None, method="t", samples=500)
    return Interval(value=value, low=value - half, high=value + half, method="t", samples=500)


def measured(*fallback: str, held_out: bool = True) -> MeasuredList:
    drop = sum(value for layer, value in DROPS.items() if layer not in fallback)
    score = VariantScore(variant="mixed", metric=interval(0.9 - drop), drop=interval(drop), measures={})
    return MeasuredList(fallback=fallback, choice=score, held_out=score if held_out else None, noise=drop)


def evidence(*lists: MeasuredList, **changes: Any) -> Evidence:
    found: dict[str, Any] = {
        "names": {layer: f"net.{layer}" for layer in DROPS},
        "ranking": tuple(Ranked(layer_id=layer, significant=True) for layer in DROPS),
        "sensitivities": {layer: interval(drop) for layer, drop in DROPS.items()},
        "measure": "mse",
        "noises": DROPS,
        "drops": {layer: interval(drop) for layer, drop in DROPS.items()},
        "interactions": (),
        "costs": CostModel(
            layers=(
                LayerCost(layer="a", macs=None, weights=100),
                LayerCost(layer="b", macs=10, weights=10),
                LayerCost(layer="c", macs=10, weights=10),
            )
        ),
        "fp32": interval(0.9),
        "measured": lists,
        "held_out": 500,
    }
    return Evidence(**(found | changes))


def optimal(**changes: Any) -> SelectionSettings:
    return SelectionSettings(algorithm="optimal", **changes)


EVERY = [measured(), measured("a"), measured("a", "b"), measured("a", "b", "c"), measured("b"), measured("a", "c")]


def test_what_was_measured_decides():
    found = what_if(evidence(*EVERY), optimal(), Budget(max_drop=0.06))
    assert (found.state, found.status, found.fallback, found.fallback_names) == ("verified", "met", ("a",), ("net.a",))
    assert found.measured == interval(0.05)
    assert (found.cost, found.upper_within) == (1.0, True)
    assert found.decision is not None
    assert found.decision.confidence == 0.975


def test_what_was_not_measured_is_an_estimate_and_says_so():
    found = what_if(evidence(measured()), optimal(), Budget(max_drop=0.06))
    assert (found.state, found.status, found.fallback) == ("predicted", "predicted_met", ("a",))
    assert found.measured is None
    assert found.decision is None
    assert found.predicted is not None
    assert found.predicted.value <= 0.06
    assert "estimate" in found.explanation
    assert [each.cost for each in found.curve] == sorted(each.cost for each in found.curve)
    assert found.upper_within is (found.predicted.high <= 0.06)


def test_an_interval_that_reaches_over_the_budget_is_told():
    wide = {layer: interval(drop, 0.03) for layer, drop in DROPS.items()}
    found = what_if(evidence(measured(), drops=wide), optimal(), Budget(max_drop=0.052))
    assert (found.status, found.upper_within) == ("predicted_met", False)
    assert "not within" in found.explanation


def test_where_no_candidate_is_predicted_within_all_that_may_be_stays_in_floating_point():
    selection = optimal(always_int8=("a",))
    found = what_if(evidence(), selection, Budget(max_drop=0.001))
    assert (found.state, found.status, found.fallback) == ("predicted", "predicted_not_met", ("b", "c"))
    assert (found.predicted, found.upper_within) == (None, None)
    assert "none" in found.explanation


def test_where_no_drop_is_known_nothing_is_predicted():
    found = what_if(evidence(drops={}), optimal(), Budget(max_drop=0.06))
    assert found.status == "not_predictable"


def test_another_cost_gives_another_list():
    """Both b and c go for less than a, whose weights are many; only a budget between tells."""
    by_layers = what_if(evidence(), optimal(), Budget(max_drop=0.085))
    by_bytes = what_if(evidence(), optimal(cost="weight_bytes"), Budget(max_drop=0.085))
    assert by_layers.cost == 1.0
    assert "a" not in by_bytes.fallback
    # int8 takes a byte for each of 120 weights, floating point three more
    assert by_bytes.cost == 120 + 3 * 10 * len(by_bytes.fallback)


def test_pins_hold():
    found = what_if(evidence(*EVERY), optimal(never_int8=("net.b",)), Budget(max_drop=0.5))
    assert (found.state, found.fallback) == ("verified", ("b",))


def test_greedy_goes_along_the_ranking_by_lists_in_any_order():
    found = what_if(evidence(*EVERY), SelectionSettings(algorithm="greedy"), Budget(max_drop=0.02))
    assert (found.state, found.status, found.fallback) == ("verified", "met", ("a", "b"))
    assert found.decision is not None
    assert found.decision.same_samples


def test_greedy_predicts_prefixes_of_the_ranking_alone():
    order = ("c", "a", "b")
    ranking = tuple(Ranked(layer_id=layer, significant=True) for layer in order)
    found = what_if(evidence(ranking=ranking), SelectionSettings(algorithm="greedy"), Budget(max_drop=0.06))
    assert [each.fallback for each in found.curve] == [(), ("c",), ("a", "c"), ("a", "b", "c")]
    assert (found.status, found.fallback) == ("predicted_met", ("a", "c"))


@pytest.mark.parametrize(
    ("selection", "budget", "field", "code"),
    [
        (optimal(never_int8=("nothing",)), Budget(max_drop=1), "selection.never_int8", "pattern-matches-nothing"),
        (optimal(never_int8=("a",), always_int8=("net.a",)), Budget(max_drop=1), "selection.always_int8", None),
        (optimal(cost=CostName.MACS), Budget(max_drop=1), "selection.cost", "cost-not-known"),
        (optimal(), Budget(max_drop=0.1, relative=True), "budget.relative", "budget-not-applicable"),
    ],
    ids=["no such layer", "pinned both ways", "a cost that is not known", "relative to zero"],
)
def test_questions_that_cannot_be_answered_name_their_field(selection, budget, field, code):
    with pytest.raises(InvalidInput) as refused:
        what_if(evidence(fp32=interval(0.0)), selection, budget)
    assert refused.value.field == field
    assert refused.value.code == (code or "pins-contradict")


def test_what_is_missing_is_asked_for_and_then_decides():
    budget = Budget(max_drop=0.06)
    wanted = next_answer(evidence(measured()), optimal(), budget)
    assert isinstance(wanted, tuple)
    assert ("a",) in wanted
    found = next_answer(evidence(*EVERY), optimal(), budget)
    assert found == what_if(evidence(*EVERY), optimal(), budget)


def test_lists_of_the_sweep_do_not_count_against_the_question(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST", 1)
    asked = (evidence(measured(), measured("b")), optimal(never_int8=("a",)), Budget(max_drop=0.045))
    assert what_if(*asked).state == "predicted"
    # of its own question, one list was measured already
    assert isinstance(next_answer(*asked, before=2), tuple)
    assert not isinstance(next_answer(*asked, before=1), tuple)


def test_the_answer_tells_the_two_ends_and_whose_confidence_it_is():
    found = what_if(evidence(*EVERY, fp32_held_out=interval(0.88)), optimal(), Budget(max_drop=0.06))
    assert found.all_int8 is not None
    assert found.all_int8.drop.value == pytest.approx(0.13)
    assert found.fp32 == interval(0.88)
    assert [each for each in found.notes if "97.5 % is that of this one question" in each]
    estimate = what_if(evidence(measured()), optimal(), Budget(max_drop=0.06))
    assert not any("confidence" in each for each in estimate.notes)
    assert estimate.fp32 == interval(0.9)
