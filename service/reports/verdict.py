"""What the sweep found, in one sentence, and what to keep in mind about it."""

from dataclasses import dataclass
from typing import Literal

from service.domain.layers import ALL_INT8
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
        return f"Every measured layer can run in int8: a {_drop(report, decision)}, within the budget of {limit}."
    return (
        f"Keep {_fallback(report, decision)} in floating point: a {_drop(report, decision)}, "
        f"within the budget of {limit}{_instead(report)}."
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
    found = []
    if decision.status == "met" and decision.certain is False:
        found.append("The upper end of the interval is above the budget: more samples would settle it.")
    if decision.same_samples:
        found.append("The list was chosen and verified on the same samples, so the drop may look a little too small.")
    return tuple(found)
