"""One step of the decision along a ranking alone: which fallback lists to measure next, or the decision itself.

For methods that stop measuring early, and have neither predictions nor a held-out part. All others go by
``service.selection.verification``.
"""

from collections.abc import Mapping, Sequence

from service.domain.errors import InvalidInput
from service.domain.layers import Frozen
from service.domain.results import Decision, Interval, VariantScore, VerifiedVariant
from service.domain.settings import SelectionAlgorithm, SelectionSettings
from service.selection.budget import Limit
from service.selection.greedy import search
from service.selection.ranking import Ranked

Fallback = tuple[str, ...]


class Question(Frozen):
    """All that the decision depends on. ``ranking``: active layers, most sensitive first; ``names``: layer id → name.

    ``sensitivities``: layer id → measured sensitivity; ``limit`` None: the caller gave no budget. ``most``: without a
    budget, no more layers than this fall back.
    """

    selection: SelectionSettings
    limit: Limit | None
    ranking: tuple[Ranked, ...]
    sensitivities: dict[str, Interval]
    names: dict[str, str]
    most: int | None = None


def next_step(question: Question, measured: Mapping[Fallback, VariantScore]) -> tuple[Fallback, ...] | Decision:
    """Fallback lists to be measured, or the decision. ``measured`` holds the drop of each list against fp32.

    Raises InvalidInput for an algorithm that cannot go by a ranking.
    """
    algorithm = question.selection.algorithm
    if algorithm is SelectionAlgorithm.OPTIMAL:
        message = "selection.algorithm: 'optimal' needs a predicted loss; here decide by greedy, threshold or top_k"
        raise InvalidInput(message, field="selection.algorithm", code="algorithm-not-applicable")
    if algorithm is SelectionAlgorithm.THRESHOLD:
        return _single(question, _above_threshold(question), measured)
    if algorithm is SelectionAlgorithm.TOP_K:
        return _single(
            question, tuple(each.layer_id for each in question.ranking)[: question.selection.top_k], measured
        )
    if question.limit is None:
        return _single(question, _significant(question), measured)
    return _greedy(question, question.limit, measured)


def _above_threshold(question: Question) -> Fallback:
    threshold = question.selection.threshold or 0.0
    values = {layer: found.value for layer, found in question.sensitivities.items()}
    return tuple(
        each.layer_id for each in question.ranking if (values[each.layer_id] or 0.0) > threshold and each.significant
    )


def _significant(question: Question) -> Fallback:
    return tuple(each.layer_id for each in question.ranking if each.significant)[: question.most]


def _single(
    question: Question, fallback: Fallback, measured: Mapping[Fallback, VariantScore]
) -> tuple[Fallback, ...] | Decision:
    if fallback not in measured:
        return (fallback,)
    if question.selection.algorithm is SelectionAlgorithm.TOP_K:
        why = f"the {_count(fallback)} that {'is' if len(fallback) == 1 else 'are'} most sensitive"
    elif question.selection.algorithm is SelectionAlgorithm.THRESHOLD:
        why = f"{_count(fallback)} more sensitive than {question.selection.threshold}, beyond noise, fall back"
    elif question.most is not None:
        why = f"no budget was given; of the {question.most} most sensitive, {_count(fallback)} beyond noise fall back"
    else:
        why = f"no budget was given; {_count(fallback)} whose sensitivity is beyond noise fall back"
    return _decision(question, fallback, measured, why)


def _greedy(
    question: Question, limit: Limit, measured: Mapping[Fallback, VariantScore]
) -> tuple[Fallback, ...] | Decision:
    order = [each.layer_id for each in question.ranking]
    # all layers in floating point is the reference itself: within any budget, and of no use to anybody
    # (one-off tables also hold every layer alone, which is a prefix of the ranking for the first layer only)
    prefixes = {len(each): score for each, score in measured.items() if each == tuple(order[: len(each)])}
    passes = {length: limit.holds(score.drop) for length, score in prefixes.items()} | {len(order): True}
    step = search(passes)
    if step.measure:
        return tuple(tuple(order[:length]) for length in step.measure)
    fallback = tuple(order[: step.found])
    if len(fallback) == len(order):
        why = f"of {len(prefixes)} lists measured, only all layers in floating point keeps the drop within"
    else:
        why = f"the shortest list along the ranking, of {len(prefixes)} measured, whose drop is within"
    return _decision(question, fallback, measured, f"{why} {limit.max_drop:g}: {_count(fallback)} in floating point")


def _decision(
    question: Question, fallback: Fallback, measured: Mapping[Fallback, VariantScore], explanation: str
) -> Decision:
    limit = question.limit
    chosen = measured.get(fallback)
    some_int8 = len(fallback) < len(question.ranking)
    holds = some_int8 and limit is not None and chosen is not None and limit.holds(chosen.drop)
    verified = tuple(
        VerifiedVariant(fallback=each, score=score, within_budget=limit.holds(score.drop) if limit else None)
        for each, score in sorted(measured.items(), key=lambda item: (len(item[0]), item[0]))
    )
    return Decision(
        status="no_budget" if limit is None else "met" if holds else "not_met",
        algorithm=question.selection.algorithm,
        fallback=fallback,
        fallback_names=tuple(question.names[each] for each in fallback),
        max_drop=limit.max_drop if limit else None,
        certain=None if limit is None else holds and chosen is not None and limit.surely_holds(chosen.drop),
        same_samples=True,
        chosen=next((each for each in verified if each.fallback == fallback), None),
        measured=verified,
        explanation=explanation,
    )


def _count(layers: Sequence[str]) -> str:
    return "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
