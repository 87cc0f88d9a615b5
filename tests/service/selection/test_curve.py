from dataclasses import replace

import pytest

from service.selection import curve
from service.selection.candidates import greedy_candidates, optimal_candidates
from service.selection.curve import NothingKept, curve_key, optimal_curve, quick_curve
from service.selection.problem import GroupConversion, GroupInteraction, Problem
from tests.service.selection.search.problems import problem

ASKED = problem(
    [4.0, 2.0, 1.0],
    [1.0, 2.0, 3.0],
    conversions=[GroupConversion(0, (1,), 0.5)],
    interactions=[GroupInteraction(0, 2, 0.25)],
)


class Shelf:
    """What was kept, and how often something was asked for."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.found = 0

    def find(self, key: str) -> bytes | None:
        self.found += key in self.held
        return self.held.get(key)

    def keep(self, key: str, content: bytes) -> None:
        self.held[key] = content


def test_the_curve_comes_back_as_it_was_made() -> None:
    shelf = Shelf()
    made, again = optimal_curve(ASKED, shelf), optimal_curve(ASKED, shelf)
    assert made == again == optimal_candidates(ASKED) == optimal_curve(ASKED, NothingKept())
    assert (len(shelf.held), shelf.found) == (1, 1)
    assert all(each.gap == 0 for each in again)


def test_what_is_kept_is_taken_and_not_made_again() -> None:
    shelf = Shelf()
    short = optimal_curve(ASKED, shelf)[:1]
    (key,) = shelf.held
    shelf.held[key] = f"[{short[0].model_dump_json()}]".encode()
    assert optimal_curve(ASKED, shelf) == short


def test_what_another_version_wrote_is_made_anew() -> None:
    shelf = Shelf()
    shelf.held[curve_key(ASKED)] = b'[{"layers": []}]'
    assert optimal_curve(ASKED, shelf) == optimal_candidates(ASKED)
    assert shelf.held[curve_key(ASKED)] != b'[{"layers": []}]'


def test_who_waits_has_the_kept_curve_or_the_same_where_it_is_small() -> None:
    shelf = Shelf()
    assert quick_curve(ASKED, shelf) == (optimal_candidates(ASKED), None)
    assert shelf.held == {}
    short = optimal_curve(ASKED, shelf)[:1]
    shelf.held[curve_key(ASKED)] = f"[{short[0].model_dump_json()}]".encode()
    assert quick_curve(ASKED, shelf) == (short, None)


def test_the_effort_is_bounded_where_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = problem([float(2**place) for place in range(12)], [1.0 + place for place in range(12)])
    assert len(optimal_candidates(wide)) > 6
    monkeypatch.setattr(curve, "WHOLE", 11)
    monkeypatch.setattr(curve, "POINTS", 6)
    found, note = quick_curve(wide, NothingKept())
    assert 1 < len(found) <= 6
    assert note is not None
    assert "it has 6 points instead of" in note
    monkeypatch.setattr(curve, "PROGRAMMES", 11)
    found, note = quick_curve(wide, NothingKept())
    every = greedy_candidates(wide, per_cost=True)
    assert set(found) < set(every)
    assert {found[0], found[-1]} == {every[0], every[-1]}
    assert note is not None
    assert "without proofs" in note


@pytest.mark.parametrize(
    "other",
    [
        problem([4.0, 2.0, 1.5], [1.0, 2.0, 3.0], conversions=ASKED.conversions, interactions=ASKED.interactions),
        problem([4.0, 2.0, 1.0], [1.0, 2.5, 3.0], conversions=ASKED.conversions, interactions=ASKED.interactions),
        replace(ASKED, conversions=(GroupConversion(0, (1, 2), 0.5),)),
        replace(ASKED, conversions=()),
        replace(ASKED, interactions=(GroupInteraction(1, 2, 0.25),)),
        replace(ASKED, interactions=(GroupInteraction(0, 2, 0.3),)),
        replace(ASKED, groups=tuple(each.model_copy(update={"floating": True}) for each in ASKED.groups)),
        replace(ASKED, base=1.0),
    ],
    ids=["loss", "cost", "conversion", "no conversion", "pair", "interaction", "pins", "base"],
)
def test_another_problem_has_another_name(other: Problem) -> None:
    assert curve_key(other) != curve_key(ASKED)
    assert curve_key(replace(ASKED)) == curve_key(ASKED)
