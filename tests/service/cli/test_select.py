"""How the answer to another question is printed."""

import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from service.cli.root import app
from service.cli.select import show_selected
from service.domain.results import Interval
from service.domain.selections import Selected

FP32 = Interval(value=0.99, low=0.98, high=1.0, method="t", samples=384)


def estimate(**changes: object) -> Selected:
    known = {
        "state": "predicted",
        "status": "predicted_met",
        "algorithm": "optimal",
        "fallback": ("a",),
        "fallback_names": ("first",),
        "cost": 1.0,
        "max_drop": 0.01,
        "predicted": None,
        "measured": None,
        "upper_within": None,
        "explanation": "an estimate, not measured: the cheapest of 3",
        "notes": ("the search has 9,000 variables",),
        "decision": None,
        "curve": (),
        "fp32": FP32,
    }
    return Selected.model_validate(known | changes)


def test_an_estimate_says_that_it_is_one() -> None:
    stream = io.StringIO()
    show_selected(Console(file=stream, width=200), estimate())
    said = stream.getvalue()
    assert "is thought to be met (an estimate" in said
    assert "Fallback layers (1): first" in said
    assert "All in floating point: 0.9900 [0.9800, 1.0000]" in said
    assert "Note: the search has 9,000 variables" in said


@pytest.mark.parametrize(
    ("status", "told"), [("predicted_not_met", "No list is thought"), ("not_predictable", "Nothing can be")]
)
def test_every_estimate_has_its_words(status: str, told: str) -> None:
    stream = io.StringIO()
    show_selected(Console(file=stream, width=200), estimate(status=status, fallback_names=()))
    assert told in stream.getvalue()
    assert "none, all layers can be int8" in stream.getvalue()


def test_a_wrong_budget_is_told_before_any_server_is_asked() -> None:
    found = CliRunner().invoke(app, ["sweep", "select", "swp_1", "--max-drop", "-1", "--url", "http://127.0.0.1:9"])
    assert found.exit_code == 2
    assert "budget.max_drop" in found.output
