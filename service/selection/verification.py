"""Which candidates to measure next, and the cheapest that keeps the promise on samples that it was not chosen on.

The samples are in two parts. Every step but the last goes by the *choice* part: a monotone fit from output noise to
drop, through all that is measured there, says where along the curve the budget ends. Measured are that place and its
neighbours, the safest candidate, and then swaps of one layer for another, as long as they make it cheaper.

Then the *held-out* part is looked at. The measured candidates stand in one sequence, safest first by the choice part,
each cheaper than the one before, and are tested in this order: is the upper bound of the drop's 95 % interval within
the budget? The first that is not ends it, and the last that is, is the decision. That is fixed-sequence testing
(Maurer, Hothorn and Lehmacher 1995): to promise too much, the first candidate of the sequence that breaks the budget
must pass, and which that is does not hang on the held-out samples. So however many are tested, the error is that of one
test, 2.5 %. Where the whole sequence passes, and only there, cheaper candidates are measured and the sequence is made
anew: all tests before were passed, so the same holds of the first sequence with a candidate that breaks the budget.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from service.domain.layers import Frozen
from service.domain.results import Decision, Interval, VariantScore, VerifiedVariant
from service.selection.budget import Limit
from service.selection.candidates import Candidate, Fallback, candidate
from service.selection.noise_fit import NoiseFit, NoisyDrop, fit_noise
from service.selection.problem import Problem
from service.selection.search.swaps import cheaper_neighbours

CONFIDENCE = 0.975
"""Of the upper bound of a two-sided 95 % interval."""
FIRST_ROUND = (-4, -2, -1, 0, 1, 2, 4)
"""Places about the one where the budget is thought to end, before anything is measured there."""
NEIGHBOURS = (-1, 0, 1)
SWAPS = 6
"""Measured in one round."""
MOST = 40
"""Lists measured for one question."""
SPREAD = 8
"""Candidates measured first, evenly along the curve, where no drop is known at all."""

Status = Literal["met", "not_met", "undecidable"]


class Judged(Frozen):
    """A list measured on both parts; drops are against fp32. ``noise``: its output noise on the choice part."""

    choice: VariantScore
    held_out: VariantScore
    noise: float | None = None


@dataclass(frozen=True, eq=False)
class Verification:
    """All that the decision depends on. ``curve``: the cheapest first.

    ``names``: layer id → name, of all that are decided about. ``known``: drops of other variants on the choice part
    (single layers), by their predicted noise. ``most``: lists measured at most. ``improve``: whether swaps are tried.
    ``same_samples``: there is no held-out part, both scores are those of all samples, and nothing is promised.
    """

    algorithm: str
    problem: Problem
    curve: tuple[Candidate, ...]
    limit: Limit
    names: Mapping[str, str]
    known: tuple[NoisyDrop, ...] = ()
    most: int = MOST
    improve: bool = True
    same_samples: bool = False


def next_step(asked: Verification, measured: Mapping[Fallback, Judged]) -> tuple[Fallback, ...] | Decision:
    """Fallback lists (ids, sorted) to be measured on all samples, or the decision.

    ``measured`` may hold any lists.
    """
    curve = [each for each in asked.curve if len(each.fallback) < len(asked.names)]
    if not curve:
        return _Answer(asked, measured).not_met("only all layers in floating point was a candidate")
    if not known_drops(asked, measured):
        unknown = [each.fallback for each in curve if each.fallback not in measured]
        if not unknown:
            return _Answer(asked, measured).not_met("no candidate's drop is defined on this data")
        return tuple(unknown[:: -(-len(unknown) // SPREAD)])
    search = _Search(asked, curve, measured)
    wanted = search.wanted()[: max(0, asked.most - len(measured))]
    return tuple(wanted) if wanted else search.decision()


def known_drops(asked: Verification, measured: Mapping[Fallback, Judged]) -> list[NoisyDrop]:
    """All drops on the choice part, by predicted noise; those of lists that pins do not allow too."""
    found = ((_candidate(asked, fallback), judged.choice.drop) for fallback, judged in measured.items())
    drops = [NoisyDrop(noise=each.noise, drop=drop) for each, drop in found if each is not None]
    return [each for each in (*asked.known, *drops) if each.drop.value is not None]


def fit_of(asked: Verification, measured: Mapping[Fallback, Judged]) -> NoiseFit | None:
    """From predicted noise to drop, through all that is known; None where nothing is."""
    drops = known_drops(asked, measured)
    return fit_noise(drops) if drops else None


class _Search:
    """One step of the search, from all that is measured."""

    def __init__(self, asked: Verification, curve: Sequence[Candidate], measured: Mapping[Fallback, Judged]) -> None:
        self._asked, self._limit, self._curve, self._measured = asked, asked.limit, curve, measured
        self._answer = _Answer(asked, measured)
        scores = list(measured.values())
        assert self._answer.fit is not None, "where no drop is known nothing is searched for"
        self._predicted = self._answer.fit
        own = [NoisyDrop(noise=each.noise, drop=each.choice.drop) for each in scores if each.noise is not None]
        self._own = fit_noise([*asked.known, *own]) if own else self._predicted
        # what the held-out part's interval will be wider or narrower by; 0 where nothing is promised of unseen data
        parts = [(each.choice.drop.samples, each.held_out.drop.samples) for each in scores]
        widths = [math.sqrt(choice / held_out) for choice, held_out in parts if choice and held_out]
        self._width = 0.0 if asked.same_samples else widths[0] if widths else 1.0

    def wanted(self) -> list[Fallback]:
        """What to measure next; nothing where it is time to decide."""
        last = len(self._curve) - 1
        safe = [place for place, each in enumerate(self._curve) if self._safe(each)]
        end = safe[0] if safe else last
        begun = any(each.fallback in self._measured for each in self._curve[1:])
        places = [end + step for step in (NEIGHBOURS if begun else FIRST_ROUND)]
        near = [self._curve[place].fallback for place in [*places, last] if 0 <= place <= last]
        return self._new(near) or self._swaps() or self._further()

    def decision(self) -> Decision:
        """From what is measured."""
        chain = self.chain()
        if not chain:
            return self._answer.not_met("no list with a layer in int8 could be measured")
        if self._asked.same_samples:
            holds = [each for each in self._answer.known.values() if self._limit.holds(self._drop(each))]
            if not holds:
                return self._answer.not_met(f"none of {len(self._measured)} lists measured holds the budget")
            best = min(holds, key=lambda each: (each.cost, each.noise))
            return self._answer.met(
                best, f"the cheapest of {len(self._measured)} lists whose drop is within the budget"
            )
        passed = self._passed(chain)
        if passed:
            how = (
                f"of {len(chain)} candidates in one sequence, {len(passed)} {'has' if len(passed) == 1 else 'have'} an "
                "upper bound within the budget on held-out samples; the cheapest of these"
            )
            return self._answer.met(passed[-1], how)
        drop = self._drop(chain[0])
        if drop.low is not None and drop.low > self._limit.max_drop:
            return self._answer.not_met("even the safest candidate is beyond the budget on held-out samples")
        likely = [each for each in chain if self._limit.holds(self._drop(each)) and self._safe(each, width=0.0)]
        return self._answer.undecidable(likely[-1] if likely else chain[0])

    def chain(self) -> list[Candidate]:
        """The sequence of tests: safest first, each cheaper than all before. By the choice part alone."""
        found: list[Candidate] = []
        for each in sorted(self._answer.known.values(), key=lambda one: (self._risk(one), one.cost, one.fallback)):
            if not found or each.cost < found[-1].cost:
                found.append(each)
        return found

    def _passed(self, chain: Sequence[Candidate]) -> list[Candidate]:
        found = []
        for each in chain:
            if not self._limit.surely_holds(self._drop(each)):
                break
            found.append(each)
        return found

    def _swaps(self) -> list[Fallback]:
        """Of the curve's cheapest measured candidate that is thought to pass, neighbours that cost less."""
        safe = [each for each in self._curve if each.fallback in self._measured and self._safe(each)]
        if not self._asked.improve or not safe:
            return []
        problem, best = self._asked.problem, safe[0]
        moves = cheaper_neighbours(problem, problem.configuration(best.fallback), SWAPS)
        return self._new([problem.layers(each) for each in moves])

    def _further(self) -> list[Fallback]:
        """Once the whole sequence passes: the next two candidates of the curve that are cheaper than all of it."""
        chain = self.chain()
        if self._asked.same_samples or not chain or len(self._passed(chain)) < len(chain):
            return []
        cheaper = [each.fallback for each in self._curve if each.cost < chain[-1].cost]
        return self._new(cheaper)[-2:]

    def _new(self, several: Sequence[Fallback]) -> list[Fallback]:
        return [each for each in dict.fromkeys(several) if each not in self._measured]

    def _safe(self, each: Candidate, *, width: float | None = None) -> bool:
        return self._risk(each, width=width) <= self._limit.max_drop

    def _risk(self, each: Candidate, *, width: float | None = None) -> float:
        """Where the upper bound of its drop on the held-out part is thought to be; by its own noise if measured."""
        times = self._width if width is None else width
        found = self._measured.get(each.fallback)
        if found is None:
            return self._predicted.drop(each.noise) + times * self._predicted.half_width(each.noise)
        fit, noise = (self._predicted, each.noise) if found.noise is None else (self._own, found.noise)
        drop = found.choice.drop
        half = fit.half_width(noise) if drop.high is None or drop.value is None else drop.high - drop.value
        return fit.drop(noise) + times * half

    def _drop(self, each: Candidate) -> Interval:
        return self._measured[each.fallback].held_out.drop


class _Answer:
    """Decisions in words.

    ``known``: the measured lists that are candidates: a layer is in int8, groups are whole, pins hold. ``fit``: from
    predicted noise to drop.
    """

    def __init__(self, asked: Verification, measured: Mapping[Fallback, Judged]) -> None:
        self._asked, self._measured = asked, measured
        found = (_candidate(asked, each) for each in measured)
        self.known = {each.fallback: each for each in found if each is not None and _allowed(asked, each)}
        self.fit = fit_of(asked, measured)

    def met(self, each: Candidate, how: str) -> Decision:
        """Passed."""
        return self._decision("met", each.fallback, f"{how}: {_count(each.fallback)} in floating point")

    def not_met(self, why: str) -> Decision:
        """No candidate is within; what remains is all that may be in floating point."""
        return self._decision("not_met", self._asked.problem.layers(self._asked.problem.all_floating()), why)

    def undecidable(self, each: Candidate) -> Decision:
        """Neither within nor beyond, beyond noise."""
        needed = self._samples_needed(each)
        held_out = self._measured[each.fallback].held_out.drop.samples
        why = f"{held_out} held-out samples cannot tell whether any candidate is within the budget"
        why += "" if needed is None else f"; an estimate from the width of the interval: {needed} samples in all would"
        return self._decision("undecidable", each.fallback, why, needed=needed)

    def _samples_needed(self, each: Candidate) -> int | None:
        """The half-width shrinks with the root of the number: held-out samples, and the choice part in proportion."""
        limit, found = self._asked.limit, self._measured[each.fallback]
        drop = found.held_out.drop
        if drop.value is None or drop.high is None or drop.value >= limit.max_drop:
            return None
        times = ((drop.high - drop.value) / (limit.max_drop - drop.value)) ** 2
        return math.ceil(times * (drop.samples + found.choice.drop.samples))

    def _decision(self, status: Status, fallback: Fallback, explanation: str, *, needed: int | None = None) -> Decision:
        asked, limit = self._asked, self._asked.limit
        verified = [self._verified(each) for each in sorted(self._measured, key=lambda one: (len(one), one))]
        chosen = next((each for each in verified if each.fallback == fallback), None)
        certain = chosen is not None and limit.surely_holds(chosen.score.drop)
        return Decision(
            status=status,
            algorithm=asked.algorithm,
            fallback=fallback,
            fallback_names=tuple(asked.names[each] for each in fallback),
            max_drop=limit.max_drop,
            certain=status == "met" and certain,
            same_samples=asked.same_samples,
            chosen=chosen,
            measured=tuple(verified),
            explanation=explanation,
            confidence=CONFIDENCE if status == "met" and not asked.same_samples else None,
            samples_needed=needed,
        )

    def _verified(self, fallback: Fallback) -> VerifiedVariant:
        known, score, limit = self.known.get(fallback), self._measured[fallback].held_out, self._asked.limit
        return VerifiedVariant(
            fallback=fallback,
            score=score,
            within_budget=limit.holds(score.drop),
            cost=known.cost if known else None,
            predicted=self.fit.predict(known.noise) if known and self.fit else None,
        )


def _candidate(asked: Verification, fallback: Fallback) -> Candidate | None:
    """What is predicted of a measured list; None where groups are split, and for all layers in floating point."""
    if len(fallback) == len(asked.names):
        return None
    try:
        return candidate(asked.problem, asked.problem.configuration(fallback))
    except ValueError:
        return None


def _allowed(asked: Verification, each: Candidate) -> bool:
    floating = asked.problem.configuration(each.fallback)
    return all(floating[place] == up for place, up in asked.problem.fixed.items())


def _count(layers: Sequence[str]) -> str:
    return "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
