"""Another selection from what a sweep has measured: the question, and its answer."""

from typing import Literal

from pydantic import Field

from service.domain.layers import Frozen
from service.domain.results import CurvePoint, Decision, Interval, PredictedDrop, VariantScore
from service.domain.settings import Budget, SelectionSettings


class SelectionQuestion(Frozen):
    """What would the decision be with this budget, and this selection."""

    selection: SelectionSettings = Field(
        default=SelectionSettings(),
        description="Algorithm, cost, pins and groups, as of a sweep. `holdout` is the sweep's own; leave it out.",
    )
    budget: Budget = Field(description="The drop that is accepted; of the sweep's own metric.")
    verify: bool = Field(
        default=False,
        description="Where the answer is an estimate: have lists measured until the budget is met, not met, or "
        "undecidable, as for a sweep.",
    )


SelectionStatus = Literal["met", "not_met", "undecidable", "predicted_met", "predicted_not_met", "not_predictable"]


class Selected(Frozen):
    """The answer. ``verified``: a decision from lists that the sweep measured; ``predicted``: an estimate, unmeasured.

    ``fallback`` (ids) in floating point, at ``cost`` by the question's cost name. ``predicted`` is its drop from its
    output noise, ``measured`` its drop where it was run, on the held-out samples if there are any. ``upper_within``:
    the upper end of the measured interval, else of the predicted one, is within ``max_drop`` too; None where there is
    neither. ``curve``: all candidates, the cheapest first; nothing of it is measured. ``all_int8`` and ``fp32`` (the
    metric): what the two ends give, on the held-out samples if they were run there.

    Where no candidate is within, ``fallback`` is all that may be in floating point.
    """

    state: Literal["verified", "predicted"]
    status: SelectionStatus
    algorithm: str
    fallback: tuple[str, ...]
    fallback_names: tuple[str, ...]
    cost: float
    max_drop: float
    predicted: PredictedDrop | None
    measured: Interval | None
    upper_within: bool | None
    explanation: str
    notes: tuple[str, ...]
    decision: Decision | None
    curve: tuple[CurvePoint, ...]
    all_int8: VariantScore | None = None
    fp32: Interval | None = None
