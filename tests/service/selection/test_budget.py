import pytest

from service.domain.errors import SweepFailure
from service.domain.results import Interval
from service.domain.settings import Budget
from service.selection.budget import Limit, limit_of


def interval(value: float | None, high: float | None = None) -> Interval:
    return Interval(value=value, low=None, high=high, method="Tango", samples=1000)


def test_an_absolute_budget_is_the_limit_whatever_fp32_reaches() -> None:
    for fp32 in (0.9, 0.0, None):
        assert limit_of(Budget(max_drop=0.02), interval(fp32)).max_drop == 0.02


@pytest.mark.parametrize("fp32", [0.8, -0.8], ids=["positive metric", "negative metric"])
def test_a_relative_budget_is_a_share_of_fp32s_size(fp32: float) -> None:
    assert limit_of(Budget(max_drop=0.01, relative=True), interval(fp32)).max_drop == pytest.approx(0.008)


@pytest.mark.parametrize("fp32", [0.0, None])
def test_a_relative_budget_of_nothing_is_refused_and_told_what_goes(fp32: float | None) -> None:
    with pytest.raises(SweepFailure, match=f"0.01 is relative to the fp32 metric, which is {fp32}.*absolute") as caught:
        limit_of(Budget(max_drop=0.01, relative=True), interval(fp32))
    assert caught.value.code == "budget-not-applicable"


@pytest.mark.parametrize(
    ("drop", "holds"),
    [(0.0, True), (-0.1, True), (0.01, True), (0.0101, False), (None, False)],
    ids=["none", "better than fp32", "just the limit", "beyond", "undefined"],
)
def test_a_drop_up_to_the_limit_is_within_it(drop: float | None, holds: bool) -> None:
    assert Limit(max_drop=0.01).holds(interval(drop)) is holds


@pytest.mark.parametrize("correct", range(100, 1000, 50))
def test_one_per_cent_of_the_right_answers_is_one_per_cent_in_floating_point_too(correct: int) -> None:
    limit = limit_of(Budget(max_drop=0.02, relative=True), interval(correct / 1000))
    assert limit.holds(interval(correct // 50 / 1000))
    assert not limit.holds(interval((correct // 50 + 1) / 1000))


@pytest.mark.parametrize(
    ("value", "high", "surely"),
    [(0.004, 0.01, True), (0.004, 0.011, False), (0.004, None, False), (0.02, 0.03, False)],
    ids=["bound within", "bound beyond", "no bound", "drop beyond"],
)
def test_a_drop_is_surely_within_where_its_upper_bound_is(value: float, high: float | None, surely: bool) -> None:
    assert Limit(max_drop=0.01).surely_holds(interval(value, high)) is surely
