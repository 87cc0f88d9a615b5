"""All that a sweep knows and a decision rests on, as one stored value; and the questions that can be asked of it."""

from collections.abc import Iterable
from dataclasses import replace

from service.domain.costs import CostModel, Precision
from service.domain.layers import Frozen
from service.domain.results import CurvePoint, Decision, Interaction, Interval, VariantScore
from service.domain.settings import Budget, SelectionAlgorithm, SelectionSettings
from service.selection.budget import limit_of
from service.selection.candidates import Fallback, candidates
from service.selection.costs import prices
from service.selection.curve import Kept, NothingKept, optimal_curve, quick_curve
from service.selection.groups import Pins, merged_groups, user_groups
from service.selection.noise_fit import NoisyDrop
from service.selection.problem import formulate
from service.selection.ranking import Ranked
from service.selection.verification import Judged, Verification, fit_of, next_step

NOTHING_KEPT = NothingKept()
NAMING = (SelectionAlgorithm.THRESHOLD, SelectionAlgorithm.TOP_K)
"""They name one list; the others look for the cheapest."""


class MeasuredList(Frozen):
    """A fallback list (ids, sorted) that was run: on the samples of the choice, and on those held out if there are any.

    ``noise``: its output noise on the samples of the choice.
    """

    fallback: Fallback
    choice: VariantScore
    held_out: VariantScore | None
    noise: float | None


class Evidence(Frozen):
    """``names``: layer id → name of all that are decided about, in the order of the model; ``ranking``: of these.

    ``sensitivities``: what they were ranked by. ``noises``: what each layer's int8 adds to the output noise, by
    ``measure``, measured or estimated; ``drops``: what single layers do to the metric, where that was measured.
    ``interactions``: estimates, of the same measure. ``fp32``: the metric on the samples of the choice,
    ``fp32_held_out`` on those held out, where it is known. ``held_out``: samples that lists are verified on and not
    chosen on; 0: they are the same.
    """

    names: dict[str, str]
    ranking: tuple[Ranked, ...]
    sensitivities: dict[str, Interval]
    measure: str
    noises: dict[str, float]
    drops: dict[str, Interval]
    interactions: tuple[Interaction, ...]
    costs: CostModel
    fp32: Interval
    fp32_held_out: Interval | None = None
    measured: tuple[MeasuredList, ...]
    held_out: int
    fallback_precision: Precision = Precision.FP32


def asked_of(
    evidence: Evidence, selection: SelectionSettings, budget: Budget, kept: Kept = NOTHING_KEPT, *, quick: bool = False
) -> Verification:
    """The search that a selection asks for, its curve found where it was kept.

    ``quick``: somebody waits, so that the curve of a large problem may be a shorter one, which the notes say.
    Raises InvalidInput where pins contradict or a cost is not known.
    Layers that an engine makes one kernel decide together where something is searched for; a list that was asked for
    (by a threshold, by its length) is what it says, but for the caller's own groups.
    """
    groups = list(user_groups(selection.groups, evidence.names))
    if selection.algorithm is SelectionAlgorithm.OPTIMAL and selection.fused_groups:
        groups += evidence.costs.groups
    pins = Pins(always_int8=selection.always_int8, never_int8=selection.never_int8)
    problem = formulate(
        merged_groups(evidence.names, groups, pins),
        prices(_decided_costs(evidence), selection.cost, evidence.fallback_precision),
        evidence.noises,
        evidence.interactions,
    )
    if selection.algorithm is SelectionAlgorithm.OPTIMAL:
        curve, note = quick_curve(problem, kept) if quick else (optimal_curve(problem, kept), None)
        problem = problem if note is None else replace(problem, notes=(*problem.notes, note))
    else:
        curve = candidates(problem, selection, evidence.ranking, evidence.sensitivities)
    return Verification(
        algorithm=selection.algorithm or SelectionAlgorithm.OPTIMAL,
        problem=problem,
        curve=curve,
        limit=limit_of(budget, evidence.fp32),
        names=evidence.names,
        known=tuple(_known(evidence)),
        improve=selection.algorithm not in NAMING,
        same_samples=not evidence.held_out,
    )


def step(
    evidence: Evidence, selection: SelectionSettings, budget: Budget, kept: Kept = NOTHING_KEPT
) -> tuple[Fallback, ...] | Decision:
    """The lists that are to be measured next, on both parts of the samples, or the decision with its curve."""
    asked = asked_of(evidence, selection, budget, kept)
    answer = answered(evidence, selection, asked)
    if not isinstance(answer, Decision):
        return answer
    return answer.model_copy(update={"curve": predicted_curve(evidence, asked)})


def answered(evidence: Evidence, selection: SelectionSettings, asked: Verification) -> tuple[Fallback, ...] | Decision:
    """The same, where the search that the selection asks for is made already, and without the curve."""
    measured = _judged(evidence)
    if selection.algorithm in NAMING:
        measured = {each.fallback: measured[each.fallback] for each in asked.curve if each.fallback in measured}
    answer = next_step(asked, measured)
    return answer.model_copy(update={"cost": selection.cost}) if isinstance(answer, Decision) else answer


def predicted_curve(evidence: Evidence, asked: Verification) -> tuple[CurvePoint, ...]:
    """Every candidate, the cheapest first, with what is predicted for it; nothing of it is measured."""
    fit = fit_of(asked, _judged(evidence))
    return tuple(
        CurvePoint(
            fallback=each.fallback,
            cost=each.cost,
            predicted=fit.predict(each.noise) if fit is not None else None,
            bound=each.bound,
            gap=each.gap,
        )
        for each in asked.curve
    )


def _decided_costs(evidence: Evidence) -> CostModel:
    """Of the layers that are decided about: all others are in floating point whatever is chosen."""
    layers = tuple(each for each in evidence.costs.layers if each.layer in evidence.names)
    return evidence.costs.model_copy(update={"layers": layers})


def _known(evidence: Evidence) -> Iterable[NoisyDrop]:
    return (NoisyDrop(noise=evidence.noises[layer], drop=drop) for layer, drop in evidence.drops.items())


def _judged(evidence: Evidence) -> dict[Fallback, Judged]:
    return {
        each.fallback: Judged(choice=each.choice, held_out=each.held_out or each.choice, noise=each.noise)
        for each in evidence.measured
    }
