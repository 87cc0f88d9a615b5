"""Another selection from the evidence of a sweep: by what is measured if that decides, else by prediction.

Whatever was measured first decides, by the rules of the sweep itself; so its own question has its own answer, unless
the sweep ended at its number of lists. Where more would have to be measured, that is asked for (``next_answer``), or
the answer is a prediction (``what_if``): the cheapest candidate that is thought to be within.
"""

from dataclasses import dataclass, replace
from typing import Any

from service.domain.errors import InvalidInput, SweepFailure
from service.domain.results import CurvePoint, Decision, PredictedDrop, VariantScore
from service.domain.selections import Selected, SelectionStatus
from service.domain.settings import Budget, SelectionAlgorithm, SelectionSettings
from service.selection.budget import Limit, limit_of
from service.selection.candidates import Fallback
from service.selection.curve import Kept
from service.selection.decide import Question, next_step
from service.selection.evidence import NOTHING_KEPT, Evidence, answered, asked_of, predicted_curve
from service.selection.problem import within
from service.selection.verification import MOST, Verification

RELATIVE = "budget.relative"


def what_if(evidence: Evidence, selection: SelectionSettings, budget: Budget, kept: Kept = NOTHING_KEPT) -> Selected:
    """The answer at once; ``selection`` names its algorithm, ``kept`` may hold the curve. The effort is bounded.

    Raises InvalidInput where pins contradict or match nothing, where a cost is not known, and for a relative budget
    where the fp32 metric is zero or undefined.
    """
    asked = _asked(evidence, selection, budget, kept, quick=True, before=len(evidence.measured))
    found = _found(evidence, selection, asked)
    return _verified(asked, found) if isinstance(found, Decision) else _predicted(asked)


def next_answer(
    evidence: Evidence, selection: SelectionSettings, budget: Budget, kept: Kept = NOTHING_KEPT, *, before: int = 0
) -> Selected | tuple[Fallback, ...]:
    """The answer by what is measured, else the lists that are to be measured next; raises as ``what_if``.

    ``before``: so many lists were not measured for this question, and do not count as such.
    """
    asked = _asked(evidence, selection, budget, kept, quick=False, before=before)
    found = _found(evidence, selection, asked)
    return _verified(asked, found) if isinstance(found, Decision) else found


def _asked(
    evidence: Evidence, selection: SelectionSettings, budget: Budget, kept: Kept, *, quick: bool, before: int
) -> "_Asked":
    limit = _limit(evidence, budget)
    search = replace(asked_of(evidence, selection, budget, kept, quick=quick), most=MOST + before)
    return _Asked(evidence, search, limit, predicted_curve(evidence, search))


def _found(evidence: Evidence, selection: SelectionSettings, asked: "_Asked") -> tuple[Fallback, ...] | Decision:
    if selection.algorithm is SelectionAlgorithm.GREEDY:
        return next_step(_question(evidence, selection, asked.limit), _measured_prefixes(evidence))
    return answered(evidence, selection, asked.search)


def _limit(evidence: Evidence, budget: Budget) -> Limit:
    try:
        return limit_of(budget, evidence.fp32)
    except SweepFailure as error:  # there it ends a sweep, here it is a field of the question
        raise InvalidInput(error.message, field=RELATIVE, code=error.code) from None


def _question(evidence: Evidence, selection: SelectionSettings, limit: Limit) -> Question:
    return Question(
        selection=selection,
        limit=limit,
        ranking=evidence.ranking,
        sensitivities=evidence.sensitivities,
        names=evidence.names,
    )


def _prefixes(evidence: Evidence) -> list[Fallback]:
    order = [each.layer_id for each in evidence.ranking]
    return [tuple(order[:length]) for length in range(len(order) + 1)]


def _measured_prefixes(evidence: Evidence) -> dict[Fallback, VariantScore]:
    """In the order of the ranking, as the search along it names lists."""
    scores = {each.fallback: each.choice for each in evidence.measured}
    return {each: scores[key] for each in _prefixes(evidence) if (key := tuple(sorted(each))) in scores}


@dataclass(frozen=True)
class _Asked:
    evidence: Evidence
    search: Verification
    limit: Limit
    curve: tuple[CurvePoint, ...]

    def answer(self, **found: Any) -> Selected:
        """With all that hangs on the list alone."""
        problem, fallback = self.search.problem, tuple(sorted(found.pop("fallback")))
        interval = found["measured"] or found["predicted"]
        return Selected(
            algorithm=self.search.algorithm,
            fallback=fallback,
            fallback_names=tuple(self.search.names[each] for each in fallback),
            cost=problem.cost(problem.configuration(fallback)),
            max_drop=self.limit.max_drop,
            upper_within=within(interval.high, self.limit.max_drop) if interval and interval.high is not None else None,
            notes=(*problem.notes, *_notes(found["decision"])),
            curve=self.curve,
            all_int8=self._all_int8(),
            fp32=self.evidence.fp32_held_out or self.evidence.fp32,
            **found,
        )

    def _all_int8(self) -> VariantScore | None:
        known = next((each for each in self.evidence.measured if not each.fallback), None)
        return None if known is None else known.held_out or known.choice

    @property
    def all_floating(self) -> Fallback:
        """All that may be in floating point, which remains where nothing is within."""
        return self.search.problem.layers(self.search.problem.all_floating())


def _notes(decision: Decision | None) -> tuple[str, ...]:
    if decision is None or decision.confidence is None:
        return ()
    return (
        f"the confidence of {100 * decision.confidence:g} % is that of this one question: the best of the answers to "
        "several, by the same held-out samples, has less",
    )


def _verified(asked: _Asked, decision: Decision) -> Selected:
    assert decision.status != "no_budget"  # a question has one
    fallback = tuple(sorted(decision.fallback))
    chosen = decision.chosen
    predicted = next((each.predicted for each in asked.curve if each.fallback == fallback), None)
    return asked.answer(
        state="verified",
        status=decision.status,
        fallback=fallback,
        predicted=chosen.predicted if chosen and chosen.predicted else predicted,
        measured=chosen.score.drop if chosen else None,
        explanation=decision.explanation,
        decision=decision,
    )


def _predicted(asked: _Asked) -> Selected:
    """The cheapest candidate with a layer in int8 whose predicted drop is within."""
    limit = asked.limit.max_drop
    open_to_all = [each for each in asked.curve if len(each.fallback) < len(asked.search.names)]
    known = [(each, each.predicted) for each in open_to_all if each.predicted is not None]
    if not known:
        why = "no drop of this sweep is defined, so that none can be predicted; measure on other data or another metric"
        return _estimate(asked, "not_predictable", asked.all_floating, None, why)
    inside = [(each, predicted) for each, predicted in known if within(predicted.value, limit)]
    if not inside:
        why = f"an estimate: of {len(known)} candidates none has a predicted drop within {limit:g}"
        return _estimate(asked, "predicted_not_met", asked.all_floating, None, why)
    best, predicted = min(inside, key=lambda pair: (pair[0].cost, pair[1].value))
    upper = "" if within(predicted.high, limit) else "not "
    why = (
        f"an estimate, not measured: the cheapest of {len(known)} candidates whose predicted drop is within {limit:g}; "
        f"the upper end of its interval, {predicted.high:.3g}, is {upper}within"
    )
    return _estimate(asked, "predicted_met", best.fallback, predicted, why)


def _estimate(
    asked: _Asked, status: SelectionStatus, fallback: Fallback, predicted: PredictedDrop | None, explanation: str
) -> Selected:
    return asked.answer(
        state="predicted",
        status=status,
        fallback=fallback,
        predicted=predicted,
        measured=None,
        explanation=explanation,
        decision=None,
    )
