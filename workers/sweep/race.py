"""One step of a race: which variants need more samples before the decision is sure, or the decision itself.

After each look the decision is made as if the samples so far were all. Then it is asked what could still change it: a
layer whose side of the list's end is not sure, and a list whose drop is not surely within the budget or beyond it.
These are measured up to the next look; all others stop. Of a list that is too short for the budget it does not matter
which layers it holds, so long as each that it could be fails: where these are few, they are measured instead.

Without a budget, and by a divergence from fp32, layers also stop that the exact sweep's own intervals would not tell
apart; the decision names them as ties.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from service.domain.layers import ALL_INT8, FP32, LAYER_PREFIX
from service.domain.results import Decision, Interval
from service.domain.settings import SweepMode
from service.selection.budget import Limit
from service.selection.decide import Fallback, Question, next_step
from workers.engine import racing
from workers.metrics.shard_result import ShardResult
from workers.sweep.course import Course
from workers.sweep.measure import mixed_name
from workers.sweep.outcome import Decided, NextRound
from workers.sweep.standings import Standings, continuous_of, tests

LIST_SAMPLES = 128
"""Without a budget nothing hangs on what the list itself is measured as: it is, up to the first look at so many."""
ALTERNATIVES = 4
"""At most so many lists are measured for one that is too short; more cost more than to go on with the layers."""


def places(layers: int) -> int:
    """Without a budget the race is for the most sensitive quarter."""
    return -(-layers // 4)


def step(
    course: Course, shards: Sequence[ShardResult], question: Question, variants: Mapping[Fallback, str]
) -> NextRound | Decided:
    """What to measure next, or the decision. ``variants``: fallback list → the variant that shows it."""
    return _Race(course, shards, question, variants).step()


class _Race:
    def __init__(
        self, course: Course, shards: Sequence[ShardResult], question: Question, variants: Mapping[Fallback, str]
    ) -> None:
        self._course = course
        self._shards = shards
        self._sets = {frozenset(fallback): name for fallback, name in variants.items()}
        self._sizes = course.plan.shard_sizes()
        self._looks = racing.looks(self._sizes)
        self._metric, self._mode = course.metric, course.settings.mode
        self._searching = question.limit is not None and question.selection.algorithm == "greedy"
        self._by_threshold = question.selection.threshold is not None
        self._for_ties = not self._searching and not self._by_threshold and self._metric.is_divergence
        level = racing.level(len(self._looks), self._tests(len(question.ranking)))
        self._board = course.board(shards)
        self._strict = course.board(shards, confidence=1 - level)
        ends = np.cumsum(self._sizes)
        self._standings = Standings(
            self._board,
            question.ranking,
            self._metric,
            self._mode,
            continuous=continuous_of(tuple(shards[0].measures)),
            looks=tuple(int(ends[each - 1]) for each in self._looks),
            level=level,
            draw=course.draw,
        )
        self._order = self._standings.layers
        self._question = question.model_copy(update={"ranking": self._standings.ranking})

    def step(self) -> NextRound | Decided:
        if not self._searching and (more := self._more(self._contested())):
            return NextRound(more, self._stopped(None))
        sure = {fallback: self._within(name) for fallback, name in self._sets.items()}
        prefixes = [self._order[:length] for length in range(len(self._order) + 1)]
        enough = len(self._shards)
        if self._question.limit is None:
            ends = np.cumsum(self._sizes)
            enough = min([enough, *(each for each in self._looks if ends[each - 1] >= LIST_SAMPLES)])
        usable = {
            prefix: self._board.score(name)
            for prefix in prefixes
            if (name := self._sets.get(frozenset(prefix))) is not None
            and (sure[frozenset(prefix)] is not None or self._board.samples(name) >= sum(self._sizes[:enough]))
        }
        answer = next_step(self._question, usable)
        if not isinstance(answer, Decision):
            return NextRound(self._missing(enough, [self._name(each) for each in answer]), {})
        if self._searching and (more := self._unsure(answer, list(usable), sure)):
            return NextRound(more, self._stopped(answer))
        return Decided(self._told(answer), self._stopped(answer))

    def _tests(self, layers: int) -> int:
        """At most so many are made at a look: of the layers' order, and of values against fixed ones."""
        pairs = places(layers) * (layers - places(layers)) if self._for_ties else layers * (layers - 1) // 2
        found = tests(self._metric, self._mode, pairs, layers)
        # every layer against the threshold; every prefix of the true order against the budget, and fp32's own value
        return found + layers * self._by_threshold + (layers + 2) * self._searching

    def _unsure(
        self, answer: Decision, usable: Sequence[Fallback], sure: Mapping[frozenset[str], bool | None]
    ) -> dict[int, tuple[str, ...]]:
        """What to measure for the list of the answer to be surely that of all samples; empty where it is."""
        chosen = answer.fallback
        tried = [each for each in usable if len(each) < len(chosen)]
        names = [self._sets[frozenset(each)] for each in (*tried, chosen) if sure[frozenset(each)] is None]
        contested = {*self._open(len(chosen))}
        alternatives: list[str] = []
        for each in tried:
            possible = self._standings.possible(len(each), ALTERNATIVES)
            if possible is None or sure[frozenset(each)] is not False:
                contested.update(self._open(len(each)))
                continue
            for other in possible:
                if sure.get(other) is not False:
                    alternatives.append(self._name(tuple(layer for layer in self._order if layer in other)))
        started = [each for each in alternatives if each in self._sets.values()]
        new = [each for each in alternatives if each not in started]
        wanted = self._more([*names, *started, *(LAYER_PREFIX + each for each in self._order if each in contested)])
        if new:
            # before they are measured on more samples, they catch up
            caught_up = self._missing(len(self._shards), new)
            wanted = {
                shard: tuple(dict.fromkeys((*wanted.get(shard, ()), *caught_up.get(shard, ()))))
                for shard in sorted({*wanted, *caught_up})
            }
        return wanted

    def _open(self, length: int) -> list[str]:
        sides = self._standings.sides(length)
        return [layer for layer, side in zip(self._order, sides, strict=True) if side == 0]

    def _sides(self, length: int | None) -> dict[str, int]:
        """Layer → 1 surely in the list, -1 surely not, 0 not decided; None: by the threshold, or the places."""
        if length is not None:
            return dict(zip(self._order, (int(each) for each in self._standings.sides(length)), strict=True))
        if self._by_threshold:
            threshold = self._question.selection.threshold or 0.0
            drops = {each: self._strict.sensitivity(LAYER_PREFIX + each, self._mode).drop for each in self._order}
            sides = {layer: _beyond(drop, threshold, threshold) for layer, drop in drops.items()}
        else:
            sides = self._sides(places(len(self._order)))
        if self._metric.is_divergence and self._mode is SweepMode.ONE_ON:
            return sides
        # what is not significant is in no list without a budget
        significant = dict(zip(self._order, (int(each) for each in self._standings.significant()), strict=True))
        return {layer: min(side, significant[layer]) for layer, side in sides.items()}

    def _contested(self) -> list[str]:
        """Variants of the layers whose side is not sure, and without a budget not one that ties would take either."""
        sides = self._sides(None)
        found = [layer for layer, side in sides.items() if side == 0]
        if self._for_ties:
            length = places(len(self._order))
            settled = self._standings.apart_or_tied(length)
            open_ = np.concatenate([~settled.all(axis=1), ~settled.all(axis=0)])
            noise = self._mode is SweepMode.ONE_OFF
            significant = self._standings.significant()
            unknown = [noise and place < length and significant[place] == 0 for place in range(len(self._order))]
            found = [
                layer for place, layer in enumerate(self._order) if unknown[place] or (open_[place] and layer in found)
            ]
        return [LAYER_PREFIX + each for each in found]

    def _ties(self) -> tuple[tuple[str, ...], ...]:
        """Each layer of the list with those left out that are its ties."""
        if not self._for_ties:
            return ()
        length = places(len(self._order))
        apart = self._standings.apart(length)
        total = self._course.plan.samples
        exact = [self._board.samples(LAYER_PREFIX + each) >= total for each in self._order]
        found = []
        for row, layer in enumerate(self._order[:length]):
            others = [
                other
                for column, other in enumerate(self._order[length:])
                if not apart[row, column] and not (exact[row] and exact[length + column])
            ]
            if others:
                found.append((layer, *others))
        return tuple(found)

    def _within(self, variant: str) -> bool | None:
        """Whether the variant's drop is within the budget; None while that is not sure."""
        budget = self._course.settings.budget
        if variant == FP32 or budget is None:
            return True if variant == FP32 else None
        if self._board.samples(variant) >= self._course.plan.samples:
            limit = self._question.limit
            return None if limit is None else limit.holds(self._board.score(variant).drop)
        low = high = budget.max_drop
        if budget.relative:
            fp32 = self._strict.score(FP32).metric
            ends = sorted(abs(each) for each in (fp32.low, fp32.high) if each is not None)
            if len(ends) < 2:
                return None
            low, high = (budget.max_drop * each for each in ends)
        side = _beyond(self._strict.score(variant).drop, low, high)
        return None if side == 0 else side < 0

    def _more(self, names: Sequence[str]) -> dict[int, tuple[str, ...]]:
        """What these variants lack up to the next look; empty where they were measured on all samples."""
        upcoming = next((each for each in self._looks if each > len(self._shards)), len(self._sizes))
        return self._missing(upcoming, names)

    def _missing(self, stop: int, names: Sequence[str]) -> dict[int, tuple[str, ...]]:
        if self._mode is SweepMode.ONE_OFF and any(each.startswith(LAYER_PREFIX) for each in names):
            names = [ALL_INT8, *names]  # what a layer back in floating point is compared with
        held = [set(each.variants) for each in self._shards] + [set()] * (stop - len(self._shards))
        wanted = tuple(dict.fromkeys(names))
        found = {shard: tuple(each for each in wanted if each not in held[shard]) for shard in range(stop)}
        return {shard: missing for shard, missing in found.items() if missing}

    def _name(self, fallback: Fallback) -> str:
        return self._sets.get(frozenset(fallback)) or mixed_name(fallback)

    def _told(self, answer: Decision) -> Decision:
        ties = self._ties()
        same = f"with probability of at least {1 - racing.ERROR_RATE:g} the list is that of all layers on all samples"
        explanation = f"{answer.explanation}; layers raced: {same}"
        if ties:
            names = self._question.names
            told = "; ".join(
                f"{names[kept]} with {', '.join(names[each] for each in others)}" for kept, *others in ties
            )
            explanation += f", up to ties, which the intervals over all samples would not tell apart: {told}"
        update = {"explanation": explanation, "error_rate": racing.ERROR_RATE, "ties": ties}
        return answer.model_copy(update=update)

    def _stopped(self, answer: Decision | None) -> dict[str, str]:
        length = len(answer.fallback) if answer is not None and self._searching else None
        if self._by_threshold:
            what = f"more sensitive than {self._question.selection.threshold:g}"
        else:
            what = f"among the {places(len(self._order)) if length is None else length} most sensitive"
        total = self._course.plan.samples
        partners: dict[str, list[str]] = {}
        for kept, *rest in self._ties():
            for other in rest:
                partners.setdefault(kept, []).append(other)
                partners.setdefault(other, []).append(kept)
        found = {}
        contested = set(self._contested()) if length is None else set()
        for layer, side in self._sides(length).items():
            samples = self._board.samples(LAYER_PREFIX + layer)
            if side != 0:
                found[layer] = f"surely {'' if side > 0 else 'not '}{what} after {samples} of {total} samples"
            elif samples == total:
                found[layer] = f"on all {total} samples another layer is its equal: whether it is {what} is a tie"
            elif layer in partners and LAYER_PREFIX + layer not in contested:
                them = ", ".join(self._question.names[each] for each in partners[layer])
                found[layer] = (
                    f"tied after {samples} of {total} samples across the end of the list: the intervals over all "
                    f"samples would not tell it from {them}"
                )
        return found


def _beyond(drop: Interval, low: float, high: float) -> int:
    """1 where the drop surely exceeds the limit, -1 where it surely does not; the limit lies in [low, high]."""
    if drop.low is None or drop.high is None:
        return 0
    if Limit(max_drop=low).surely_holds(drop):
        return -1
    return 1 if drop.low > high else 0
