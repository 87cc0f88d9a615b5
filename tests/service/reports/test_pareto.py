"""Cost against drop: what is predicted, what is measured, and what is said of it."""

import re

import pytest

from service.reports.cost_quantity import CostQuantity
from service.reports.fallback import fallback_layers
from service.reports.page import to_html
from service.reports.pareto_points import Pareto
from service.reports.verdict import verdict_of
from tests.service.reports import sample
from tests.service.reports.test_page import Structure


def test_the_plot_shows_every_candidate_and_every_measured_list_and_rings_the_chosen_one() -> None:
    page = to_html(sample.searched_report()).decode()
    Structure(page)
    assert page.count('class="candidate"') == 29
    assert page.count('class="ring"') == 1
    assert page.count('<g class="step') == 8  # six lists, all int8 and all float
    assert "measured on 1,000 held-out samples" in page
    assert "millions of MACs in floating point per sample" in page
    assert "layers in floating point</text>" not in page


def test_what_lies_far_beyond_the_budget_is_told_in_numbers() -> None:
    page = to_html(sample.searched_report()).decode()
    assert "all int8, 12.35\u00a0pp</text>" in page


def test_without_a_curve_the_path_is_drawn() -> None:
    assert Pareto.of(sample.report()) is None
    assert 'class="drawing path"' in to_html(sample.report()).decode()


def test_a_list_that_is_no_candidate_is_in_the_table_only() -> None:
    report = sample.searched_report()
    assert report.decision is not None
    other = report.decision.measured[0].model_copy(update={"cost": None, "fallback": ("node_5",)})
    found = Pareto.of(sample.searched_report(measured=(*report.decision.measured, other)))
    assert found is not None
    assert len(found.points) == len(found.drawn) + 1


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("layers", 3.0, "3 layers in floating point"),
        ("macs", 1.5e9, "1.50 billions of MACs in floating point per sample"),
        ("weight_bytes", 44e6, "44 millions of bytes of weights"),
        ("bops", 0.0, "0 bit operations per sample"),
        ("latency", 0.0042, "4.20 milliseconds per sample"),
    ],
)
def test_costs_are_written_in_words(name: str, value: float, text: str) -> None:
    assert CostQuantity.of(name, value).phrase(value) == text


def test_the_verdict_tells_the_promise_and_the_prediction() -> None:
    found = verdict_of(sample.searched_report())
    assert "Verified on 1,000 samples that the choice did not see" in found.sentence
    assert any("Predicted for this list, an estimate" in each for each in found.caveats)
    assert any("With every layer in floating point top1 is 91.30" in each for each in found.caveats)
    assert any("97.5\u00a0% confidence" in each for each in found.caveats)


def test_a_measured_drop_outside_of_the_prediction_is_told() -> None:
    report = sample.searched_report()
    assert report.decision is not None
    chosen = report.decision.measured[0].model_copy(update={"predicted": report.decision.curve[20].predicted})
    found = verdict_of(sample.searched_report(chosen=chosen))
    assert any("outside of what was predicted" in each for each in found.caveats)


def test_the_fallback_list_has_what_was_weighed() -> None:
    found = fallback_layers(sample.searched_report())
    assert (found["confidence"], found["cost"]["name"], found["samples_needed"]) == (0.975, "macs", None)
    assert found["predicted_drop"]["variants"] == 7


def test_colours_go_by_the_interval_as_the_promise_does() -> None:
    report = sample.searched_report()
    found = Pareto.of(report)
    assert found is not None
    sides = {each.fallback: each.within_budget for each in found.points if not each.control}
    # measured drops of 3.15, 1.21, 0.62, 0.25, 0.21 and 0.15 pp against 1.00; the second reaches down to 0.83
    assert sides == {1: False, 2: None, 3: True, 4: True, 5: True, 7: True}
    page = to_html(report).decode()
    assert [page.count(f'<g class="step {each}"') for each in ("within", "over", "open")] == [5, 2, 1]
    assert "its upper end is within the budget" in page
    assert page.count("? not sure") == 1


def test_a_point_value_within_the_budget_is_not_enough() -> None:
    report = sample.searched_report()
    assert report.decision is not None
    wide = report.decision.measured[3]
    score = wide.score.model_copy(update={"drop": wide.score.drop.model_copy(update={"high": 0.011})})
    doubtful = wide.model_copy(update={"score": score})
    found = Pareto.of(sample.searched_report(measured=(doubtful,)))
    assert found is not None
    assert [each.within_budget for each in found.points if not each.control] == [None]


def test_lists_of_one_cost_stand_side_by_side() -> None:
    report = sample.searched_report()
    assert report.decision is not None
    swapped = report.decision.measured[0].model_copy(update={"fallback": ("node_5",)})
    page = to_html(sample.searched_report(measured=(*report.decision.measured, swapped))).decode()
    whiskers = re.findall(r"<g class=\"step over\"><title>1 fallback layer.*?<circle cx=\"([\d.]+)\"", page)
    assert len(set(whiskers)) == 2


def test_the_chosen_list_is_named_above_the_drawing() -> None:
    page = to_html(sample.searched_report()).decode()
    assert "chosen: 3 layers in float</text>" in page


def test_layers_are_counted_once() -> None:
    assert "layers in floating point</th>" not in to_html(sample.searched_report(cost="layers")).decode()
