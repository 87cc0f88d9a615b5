"""What the sweep found, in one sentence, and what to keep in mind about it."""

from dataclasses import dataclass
from typing import Literal

from service.domain.layers import ALL_INT8, FP32
from service.domain.results import Decision
from service.reports.quantity import Quantity, counted, worsening
from service.reports.report import Report

Tone = Literal["good", "bad", "neutral"]


@dataclass(frozen=True)
class Verdict:
    """``label`` is two or three words, ``sentence`` the finding, ``caveats`` what qualifies it."""

    tone: Tone
    label: str
    sentence: str
    caveats: tuple[str, ...] = ()


def verdict_of(report: Report) -> Verdict:
    """The verdict, from the decision as measured; for a report without one, how far the sweep came."""
    decision = report.decision
    if decision is None:
        sentence = (
            f"{_active(report):,} of {counted(len(report.layers), 'layer')} scored; no decision has been made yet."
        )
        return Verdict("neutral", "Partial report", sentence)
    if decision.status == "met":
        return Verdict("good", "Budget met", _met(report, decision), _caveats(report, decision))
    if decision.status == "not_met":
        return Verdict("bad", "Budget not met", _not_met(report, decision), _caveats(report, decision))
    if decision.status == "undecidable":
        return Verdict("neutral", "Not decidable", _undecidable(report, decision), _caveats(report, decision))
    return Verdict("neutral", "No budget given", _without_budget(report, decision), _caveats(report, decision))


def _met(report: Report, decision: Decision) -> str:
    limit = Quantity.drop(report.metric).with_unit(decision.max_drop)
    if not decision.fallback:
        return (
            f"Every measured layer can run in int8: a {_drop(report, decision)}, within the budget of {limit}."
            f"{_promise(decision)}"
        )
    return (
        f"Keep {_fallback(report, decision)} in floating point: a {_drop(report, decision)}, "
        f"within the budget of {limit}{_instead(report)}.{_promise(decision)}"
    )


def _promise(decision: Decision) -> str:
    """What makes it more than a number: samples that the choice did not see."""
    if decision.chosen is None or decision.confidence is None or decision.same_samples:
        return ""
    return (
        f" Verified on {decision.chosen.score.drop.samples:,} samples that the choice did not see; the upper end of "
        "the interval is within the budget."
    )


def _not_met(report: Report, decision: Decision) -> str:
    limit = Quantity.drop(report.metric).with_unit(decision.max_drop)
    if len(decision.fallback) == _active(report):
        return (
            f"No fallback list that was measured keeps the {report.metric.name} {worsening(report.metric)} "
            f"within {limit}"
            f"{_instead(report, ', and with every layer in int8 it is ')}."
        )
    return (
        f"With {_fallback(report, decision)} in floating point there is a {_drop(report, decision)}, "
        f"more than the budget of {limit}{_instead(report)}."
    )


def _undecidable(report: Report, decision: Decision) -> str:
    limit = Quantity.drop(report.metric).with_unit(decision.max_drop)
    needed = decision.samples_needed
    more = "" if needed is None else f" About {needed:,} samples would tell (an estimate)."
    return (
        f"These samples cannot tell whether the budget of {limit} is kept: with {_fallback(report, decision)} in "
        f"floating point there is a {_drop(report, decision)}.{more}"
    )


def _without_budget(report: Report, decision: Decision) -> str:
    if not decision.fallback:
        return f"No layer is set apart to stay in floating point: all in int8, a {_drop(report, decision)}."
    return (
        f"With {_fallback(report, decision)} in floating point there is a {_drop(report, decision)}{_instead(report)}."
    )


def _drop(report: Report, decision: Decision) -> str:
    name = f"{report.metric.name} {worsening(report.metric)}"
    if decision.chosen is None:
        return f"{name} that was not measured"
    return f"{name} of {Quantity.drop(report.metric).phrase(decision.chosen.score.drop)}"


def _instead(report: Report, words: str = ", instead of {} with every layer in int8") -> str:
    control = report.controls.get(ALL_INT8)
    if control is None or control.drop.value is None:
        return ""
    phrase = Quantity.drop(report.metric).phrase(control.drop)
    return words.format(phrase) if "{}" in words else words + phrase


def _fallback(report: Report, decision: Decision) -> str:
    return f"{len(decision.fallback):,} of {counted(_active(report), 'layer')}"


def _active(report: Report) -> int:
    return sum(each.scored for each in report.layers)


def _caveats(report: Report, decision: Decision) -> tuple[str, ...]:
    found = [*_predicted(report, decision), *_floating(report, decision)]
    if decision.confidence is not None:
        found.append(
            f"Promised with {100 * decision.confidence:g}\u00a0% confidence, for data like that of the evaluation set."
        )
    if decision.status == "met" and decision.certain is False:
        found.append("The upper end of the interval is above the budget: more samples would settle it.")
    if decision.same_samples:
        found.append("The list was chosen and verified on the same samples, so the drop may look a little too small.")
    return tuple(found)


def _predicted(report: Report, decision: Decision) -> tuple[str, ...]:
    chosen = decision.chosen
    if chosen is None or chosen.predicted is None:
        return ()
    quantity, found, drop = Quantity.drop(report.metric), chosen.predicted, chosen.score.drop
    told = (
        f"Predicted for this list, an estimate: {quantity.with_unit(found.value)} (95\u00a0% of such lists would be "
        f"measured at {quantity.number(found.low)} to {quantity.number(found.high)}); "
        f"measured: {quantity.phrase(drop)}."
    )
    if drop.value is not None and not found.low <= drop.value <= found.high:
        told += " That is outside of what was predicted: trust the other predictions less."
    return (told,)


def _floating(report: Report, decision: Decision) -> tuple[str, ...]:
    """The level that all drops are from, where lists were searched by prediction."""
    control = report.controls.get(FP32)
    if control is None or control.metric.value is None or not decision.curve:
        return ()
    level = Quantity.level(report.metric).phrase(control.metric)
    return (
        f"With every layer in floating point {report.metric.name} is {level}, on {control.metric.samples:,} samples.",
    )
