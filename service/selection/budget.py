"""Whether a measured drop is within the budget."""

from service.domain.errors import SweepFailure
from service.domain.layers import Frozen
from service.domain.results import Interval
from service.domain.settings import Budget

# 7 of 1,000 samples are 1 % of a top-1 of 0.7, but 0.01 · 0.7 is a little less than 0.007 in floating point
ROUNDING = 1e-9


class Limit(Frozen):
    """The budget in the metric's own unit. A drop of just this much is within it."""

    max_drop: float

    def holds(self, drop: Interval) -> bool:
        """Whether the measured drop is within the limit."""
        return drop.value is not None and self._within(drop.value)

    def surely_holds(self, drop: Interval) -> bool:
        """Whether the drop's upper confidence bound is within the limit too."""
        return self.holds(drop) and drop.high is not None and self._within(drop.high)

    def _within(self, drop: float) -> bool:
        return drop <= self.max_drop * (1 + ROUNDING)


def limit_of(budget: Budget, fp32: Interval) -> Limit:
    """The absolute limit; raises SweepFailure for a relative budget where the fp32 metric is zero or undefined."""
    if not budget.relative:
        return Limit(max_drop=budget.max_drop)
    if not fp32.value:
        raise SweepFailure(
            f"budget: max_drop {budget.max_drop} is relative to the fp32 metric, which is {fp32.value}; "
            "give an absolute one (relative: false)",
            code="budget-not-applicable",
        )
    return Limit(max_drop=budget.max_drop * abs(fp32.value))
