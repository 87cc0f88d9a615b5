"""The decision, driven as the worker drives it: each list that is asked for is looked up in a simulated table."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import InvalidInput
from service.domain.results import Decision, Interval, VariantScore
from service.domain.settings import SelectionSettings
from service.selection.budget import Limit
from service.selection.decide import Fallback, Question, next_step
from service.selection.ranking import Ranked

MARGIN = 0.002


def interval(value: float | None) -> Interval:
    high = None if value is None else value + MARGIN
    low = None if value is None else value - MARGIN
    return Interval(value=value, low=low, high=high, method="Tango", samples=1000)


def score(drop: float | None) -> VariantScore:
    return VariantScore(variant="mixed", metric=interval(0.9), drop=interval(drop), measures={})


def question(
    drops: dict[str, float], *, limit: float | None = 0.01, threshold: float | None = None, noise: str = ""
) -> Question:
    """Layers by descending sensitivity; those named in ``noise`` are not significant."""
    ranking = sorted(drops, key=lambda layer: -drops[layer])
    algorithm = "greedy" if threshold is None else "threshold"
    return Question(
        selection=SelectionSettings(algorithm=algorithm, threshold=threshold),
        limit=None if limit is None else Limit(max_drop=limit),
        ranking=tuple(Ranked(layer_id=layer, significant=layer not in noise) for layer in ranking),
        sensitivities={layer: interval(drop) for layer, drop in drops.items()},
        names={layer: f"net.{layer}" for layer in drops},
    )


def decide(
    asked: Question, drop_of: Callable[[Fallback], float | None], extra: dict[Fallback, float] | None = None
) -> tuple[Decision, int]:
    """The decision and how many lists were measured for it; the controls are known from the start."""
    every = tuple(each.layer_id for each in asked.ranking)
    measured = {(): score(drop_of(())), every: score(0.0)}
    measured |= {fallback: score(drop) for fallback, drop in (extra or {}).items()}
    before = len(measured)
    while not isinstance(step := next_step(asked, measured), Decision):
        assert step, "a step asks for something or decides"
        assert not set(step) & set(measured), "nothing is measured twice"
        measured |= {fallback: score(drop_of(fallback)) for fallback in step}
    return step, len(measured) - before


def additive(drops: dict[str, float]) -> Callable[[Fallback], float]:
    """Each layer that stays in int8 costs its own drop."""
    return lambda fallback: sum(drop for layer, drop in drops.items() if layer not in fallback)


DROPS = {"a": 0.001, "b": 0.10, "c": 0.002, "d": 0.05, "e": 0.003}


def test_greedy_finds_the_shortest_list_within_the_budget_and_says_how() -> None:
    found, _ = decide(question(DROPS), additive(DROPS))
    assert (found.status, found.fallback, found.fallback_names) == ("met", ("b", "d"), ("net.b", "net.d"))
    assert found.chosen is not None
    assert found.chosen.score.drop.value == 0.001 + 0.002 + 0.003
    assert found.certain is True
    assert "shortest" in found.explanation
    assert "2 layers in floating point" in found.explanation


def test_a_drop_whose_bound_exceeds_the_budget_is_met_but_not_certain() -> None:
    found, _ = decide(question(DROPS, limit=0.0061), additive(DROPS))
    assert (found.status, found.fallback, found.certain) == ("met", ("b", "d"), False)


def test_all_int8_within_the_budget_needs_no_fallback() -> None:
    found, measured = decide(question(DROPS, limit=1.0), additive(DROPS))
    assert (found.status, found.fallback, measured) == ("met", (), 0)
    assert "0 layers" in found.explanation


def test_where_no_list_with_a_layer_in_int8_holds_the_decision_says_so() -> None:
    found, _ = decide(question(DROPS, limit=0.0), additive(DROPS))
    assert (found.status, found.fallback) == ("not_met", ("b", "d", "e", "c", "a"))
    assert found.certain is False
    assert "only all layers in floating point" in found.explanation


def test_a_drop_that_is_not_defined_is_not_within_any_budget() -> None:
    found, _ = decide(question(DROPS, limit=1.0), lambda _: None)
    assert found.status == "not_met"


def test_every_list_that_was_measured_is_told_with_its_outcome() -> None:
    found, measured = decide(question(DROPS), additive(DROPS))
    assert len(found.measured) == measured + 2
    outcomes = {each.fallback: each.within_budget for each in found.measured}
    assert outcomes[()] is False
    assert outcomes[("b",)] is False
    assert outcomes[("b", "d")] is True


def test_lone_layers_of_a_one_off_table_are_no_prefixes_of_the_ranking() -> None:
    """(a,) fails and is measured; it says nothing of (b,), the first of the ranking."""
    alone: dict[Fallback, float] = {("b",): 0.001, ("a",): 0.5, ("c",): 0.5, ("d",): 0.5, ("e",): 0.5}
    found, measured = decide(question(DROPS), additive(DROPS), extra=alone)
    assert (found.status, found.fallback, measured) == ("met", ("b",), 0)


def test_a_lone_layer_that_passes_does_not_stand_in_for_the_first_of_the_ranking() -> None:
    alone: dict[Fallback, float] = {("b",): 0.2, ("a",): 0.0}
    found, _ = decide(question(DROPS), additive(DROPS), extra=alone)
    assert (found.status, found.fallback) == ("met", ("b", "d"))


def test_the_threshold_takes_layers_that_are_surely_above_it() -> None:
    found, measured = decide(question(DROPS, limit=None, threshold=0.0025, noise="d"), additive(DROPS))
    assert (found.status, found.fallback, measured) == ("no_budget", ("b", "e"), 1)
    assert "2 layers more sensitive than 0.0025" in found.explanation


def test_a_sensitivity_of_just_the_threshold_is_not_above_it() -> None:
    found, _ = decide(question(DROPS, limit=None, threshold=0.10), additive(DROPS))
    assert found.fallback == ()


def test_a_threshold_with_a_budget_tells_whether_its_list_holds() -> None:
    low, _ = decide(question(DROPS, limit=0.01, threshold=0.02), additive(DROPS))
    high, _ = decide(question(DROPS, limit=0.01, threshold=0.07), additive(DROPS))
    assert (low.status, low.fallback) == ("met", ("b", "d"))
    assert (high.status, high.fallback) == ("not_met", ("b",))


def test_without_a_budget_what_is_beyond_noise_falls_back() -> None:
    found, _ = decide(question(DROPS, limit=None, noise="ace"), additive(DROPS))
    assert (found.status, found.fallback, found.certain) == ("no_budget", ("b", "d"), None)
    assert [each.within_budget for each in found.measured] == [None, None, None]
    assert "no budget was given" in found.explanation


def test_the_k_most_sensitive_are_measured_and_told() -> None:
    asked = question(DROPS).model_copy(update={"selection": SelectionSettings(algorithm="top_k", top_k=2)})
    found, measured = decide(asked, additive(DROPS))
    assert (found.status, found.fallback, measured) == ("met", ("b", "d"), 1)
    assert "the 2 layers that are most sensitive" in found.explanation


def test_what_needs_predictions_is_refused_by_name() -> None:
    asked = question(DROPS).model_copy(update={"selection": SelectionSettings(algorithm="optimal")})
    with pytest.raises(InvalidInput, match=r"selection.algorithm: 'optimal' needs a predicted loss"):
        next_step(asked, {})


LAYERS = st.dictionaries(st.sampled_from("abcdefghijkl"), st.floats(0, 0.1), min_size=1)


@given(LAYERS, st.floats(0, 0.5))
def test_where_layers_add_up_no_shorter_prefix_holds(drops: dict[str, float], limit: float) -> None:
    asked = question(drops, limit=limit)
    found, _ = decide(asked, additive(drops))
    order = tuple(each.layer_id for each in asked.ranking)
    bound = Limit(max_drop=limit)
    holding = [size for size in range(len(order)) if bound.holds(interval(additive(drops)(order[:size])))]
    assert found.fallback == order[: holding[0] if holding else len(order)]
    assert found.status == ("met" if holding else "not_met")


@given(LAYERS, st.floats(0, 0.5), st.randoms(use_true_random=False))
def test_a_met_decision_was_measured_whatever_the_layers_do_together(
    drops: dict[str, float], limit: float, chance: random.Random
) -> None:
    table: dict[Fallback, float] = {}

    def drop_of(fallback: Fallback) -> float:
        return table.setdefault(fallback, chance.uniform(-0.1, 0.6))

    found, _ = decide(question(drops, limit=limit), drop_of)
    if found.status == "met":
        assert found.chosen is not None
        assert found.chosen.within_budget is True
        assert table[found.fallback] <= limit * (1 + 1e-6)
        assert len(found.fallback) < len(drops)
    else:
        assert len(found.fallback) == len(drops)
