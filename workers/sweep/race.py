"""One step of a race: which variants need more samples before the decision is sure, or the decision itself.

After each look the decision is made as if the samples so far were all. Then it is asked what could still change it: a
layer whose side of the list's end (and of each shorter list that was tried) is not sure, and a list whose drop is not
surely within the budget or beyond it. These are measured up to the next look; all others stop.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from service.domain.layers import ALL_INT8, FP32, LAYER_PREFIX
from service.domain.results import Decision, Interval
from service.domain.settings import SweepMode
from service.selection.budget import Limit
from service.selection.decide import Fallback, Question, next_step
from service.selection.ranking import CONTINUOUS
from workers.engine import racing
from workers.metrics.scores import Scoreboard
from workers.metrics.shard_result import ShardResult
from workers.sweep.job import Job
from workers.sweep.measure import mixed_name
from workers.sweep.outcome import Decided, NextRound


def places(layers: int) -> int:
    """Without a budget the race is for the most sensitive quarter."""
    return -(-layers // 4)


def step(
    job: Job, shards: Sequence[ShardResult], question: Question, variants: Mapping[Fallback, str]
) -> NextRound | Decided:
    """What to measure next, or the decision. ``variants``: fallback list → the variant that shows it."""
    return _Race(job, shards, question, variants).step()


class _Race:
    def __init__(
        self, job: Job, shards: Sequence[ShardResult], question: Question, variants: Mapping[Fallback, str]
    ) -> None:
        self._job = job
        self._shards = shards
        self._variants = variants
        self._order = [each.layer_id for each in question.ranking]  # as the rows of the comparisons are
        self._sizes = job.plan.shard_sizes()
        self._looks = racing.looks(self._sizes)
        self._level = racing.ERROR_RATE / racing.comparisons(len(self._order), len(self._looks))
        self._board = job.board(shards)
        self._strict = Scoreboard(shards, job.metric(), confidence=1 - self._level)
        self._reached = sum(self._sizes[: len(shards)])
        self._above = self._make_race().above()
        order = racing.in_order(range(len(self._order)), self._above)
        self._question = question.model_copy(update={"ranking": tuple(question.ranking[each] for each in order)})

    def step(self) -> NextRound | Decided:
        searching = self._question.limit is not None and self._question.selection.algorithm == "greedy"
        if not searching and (contested := self._contested(None)):
            more = self._more([LAYER_PREFIX + each for each in contested])
            if more:
                return NextRound(more, self._stopped(None))
        sure = {fallback: self._within(name) for fallback, name in self._variants.items()}
        usable = {
            fallback: self._board.score(name)
            for fallback, name in self._variants.items()
            if sure[fallback] is not None or self._board.samples(name) >= self._reached
        }
        answer = next_step(self._question, usable)
        if not isinstance(answer, Decision):
            return NextRound(self._missing(len(self._shards), [self._name(each) for each in answer]), {})
        if searching:
            order = tuple(each.layer_id for each in self._question.ranking)
            tried = [each for each in usable if each == order[: len(each)]]
            tried = [each for each in tried if len(each) <= len(answer.fallback)]
            unsure = [self._variants[each] for each in tried if sure[each] is None]
            contested = self._contested([len(each) for each in tried])
            more = self._more([*unsure, *(LAYER_PREFIX + each for each in contested)])
            if more:
                return NextRound(more, self._stopped(answer))
        explanation = (
            f"{answer.explanation}; layers raced: by means over all samples the list is the same with probability "
            f"of at least {1 - racing.ERROR_RATE:g}"
        )
        update = {"explanation": explanation, "error_rate": racing.ERROR_RATE}
        return Decided(answer.model_copy(update=update), self._stopped(answer))

    def _make_race(self) -> racing.Race:
        metric, mode = self._job.metric(), self._job.settings.mode
        measure, higher = metric.measure, metric.higher_is_better
        if metric.name == "sqnr" or measure is None:  # ranked by what tells ties apart
            measure, higher = next(each for each in CONTINUOUS if each in self._shards[0].measures), False

        def drops(layer: str) -> racing.Floats:
            name = LAYER_PREFIX + layer
            mine, against = (name, FP32) if mode is SweepMode.ONE_ON else (ALL_INT8, name)
            return self._board.drops(mine, against=against, measure=measure, higher_is_better=higher)

        ends = np.cumsum(self._sizes)
        looks = tuple(int(ends[each - 1]) for each in self._looks)
        return racing.Race({each: drops(each) for each in self._order}, looks, self._level)

    def _sides(self, length: int | None) -> Mapping[str, int]:
        """Layer → 1 surely in the list, -1 surely not, 0 not decided; None: by the threshold, or the places."""
        threshold = self._question.selection.threshold
        if length is None and threshold is not None:
            mode = self._job.settings.mode
            drops = {each: self._strict.sensitivity(LAYER_PREFIX + each, mode).drop for each in self._order}
            return {layer: _beyond(drop, threshold, threshold) for layer, drop in drops.items()}
        found = racing.sides(self._above, places(len(self._order)) if length is None else length)
        return dict(zip(self._order, (int(each) for each in found), strict=True))

    def _contested(self, lengths: Collection[int] | None) -> list[str]:
        """Layers whose side is not sure, of any of the lists' ends."""
        sides = [self._sides(each) for each in (lengths if lengths is not None else [None])]
        return [layer for layer in self._order if any(each[layer] == 0 for each in sides)]

    def _within(self, variant: str) -> bool | None:
        """Whether the variant's drop is within the budget; None while that is not sure."""
        budget = self._job.settings.budget
        if variant == FP32 or budget is None:
            return True if variant == FP32 else None
        if self._board.samples(variant) >= self._job.plan.samples:
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
        if self._job.settings.mode is SweepMode.ONE_OFF and any(each.startswith(LAYER_PREFIX) for each in names):
            names = [ALL_INT8, *names]  # what a layer back in floating point is compared with
        held = [set(each.variants) for each in self._shards] + [set()] * (stop - len(self._shards))
        wanted = tuple(dict.fromkeys(names))
        found = {shard: tuple(each for each in wanted if each not in held[shard]) for shard in range(stop)}
        return {shard: missing for shard, missing in found.items() if missing}

    def _name(self, fallback: Fallback) -> str:
        return self._variants.get(fallback) or mixed_name(fallback)

    def _stopped(self, answer: Decision | None) -> dict[str, str]:
        searching = answer is not None and self._question.limit is not None
        length = len(answer.fallback) if answer is not None and searching else None
        if self._question.selection.threshold is not None:
            length, what = None, f"more sensitive than {self._question.selection.threshold:g}"
        else:
            what = f"among the {places(len(self._order)) if length is None else length} most sensitive"
        total = self._job.plan.samples
        found = {}
        for layer, side in self._sides(length).items():
            samples = self._board.samples(LAYER_PREFIX + layer)
            if side != 0:
                found[layer] = f"surely {'' if side > 0 else 'not '}{what} after {samples} of {total} samples"
            elif samples == total:
                found[layer] = f"all {total} samples were measured without surely telling whether it is {what}"
        return found


def _beyond(drop: Interval, low: float, high: float) -> int:
    """1 where the drop surely exceeds the limit, -1 where it surely does not; the limit lies in [low, high]."""
    if drop.low is None or drop.high is None:
        return 0
    if Limit(max_drop=low).surely_holds(drop):
        return -1
    return 1 if drop.low > high else 0
