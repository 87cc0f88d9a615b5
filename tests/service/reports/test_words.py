"""How numbers, foreign text and axes are written."""

import pytest

from service.domain.results import Interval
from service.reports.axis import axis_of
from service.reports.quantity import Quantity, scaled_count, significant
from service.reports.verdict import verdict_of
from service.reports.visible_text import shortened, visible
from tests.service.reports import sample


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.5, "−0.500"), (12.345, "12.3"), (1234.5, "1234"), (3e-7, "3.00×10⁻⁷"), (2e9, "2.00×10⁹")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_shares_are_percentage_points() -> None:
    quantity = Quantity.drop(sample.report().metric)
    assert quantity.with_unit(-0.0012) == "−0.12\u00a0pp"
    assert quantity.number(0.00001) == "0.00100"
    assert quantity.number(None) == "–"


def test_counts_are_scaled() -> None:
    assert [scaled_count(each) for each in (None, 12, 1500, 2_000_000)] == ["–", "12", "1.50\u00a0k", "2.00\u00a0M"]


def test_invisible_characters_are_written_out() -> None:
    assert visible("a\x00b\u202ec\u2028d\te") == "a\\x00b\\u202ec\\u2028d\\x09e"
    assert shortened("a" * 30 + ".conv2", 16) == "aaaaa…aaaa.conv2"


def interval(value: float) -> Interval:
    return Interval(value=value, low=value, high=value, method="t", samples=9)


def test_an_axis_is_logarithmic_only_for_measures_that_spread() -> None:
    wide = [interval(1e-6), interval(1.5)]
    assert axis_of(wide, measure="kl", start=0, stop=100).ticks()[0] == 1e-6
    assert not axis_of(wide, measure="top1", start=0, stop=100).log
    assert not axis_of([interval(0.5), interval(1.5)], measure="kl", start=0, stop=100).log


@pytest.mark.parametrize("values", [[], [0.0], [-30.0], [-30.0, -10.0], [5.0], [-1.0, 2.0]])
def test_every_axis_holds_its_values(values: list[float]) -> None:
    axis = axis_of([interval(value) for value in values], measure="sqnr", start=0, stop=100)
    assert all(axis.low <= value <= axis.high for value in values)
    assert axis.ticks()


@pytest.mark.parametrize(
    ("changes", "label", "words"),
    [
        ({"status": "not_met"}, "Budget not met", "more than the budget"),
        ({"status": "undecidable", "samples_needed": 4100}, "Not decidable", "About 4,100 samples would tell"),
        ({"status": "no_budget", "max_drop": None}, "No budget given", "instead of 12.35"),
        ({"fallback": ()}, "Budget met", "Every measured layer can run in int8"),
    ],
)
def test_the_verdict_follows_the_decision(changes: dict[str, object], label: str, words: str) -> None:
    report = sample.report()
    found = verdict_of(sample.report(decision=sample.decision(report.layers, **changes)))
    assert found.label == label
    assert words in found.sentence


def test_an_uncertain_budget_is_told() -> None:
    report = sample.report()
    found = verdict_of(sample.report(decision=sample.decision(report.layers, certain=False)))
    assert any("upper end of the interval" in each for each in found.caveats)
