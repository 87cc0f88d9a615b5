"""The rules that ``benchmarks.decisions`` compares: each decides from one draw of samples, and asks for measurements.

A rule is a generator: it yields the fallback lists that it wants measured, and returns its claim. What it measures, it
sees on its own draw only.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from service.domain.results import Decision, Interaction, Interval, VariantScore
from service.selection.budget import Limit
from service.selection.candidates import Candidate, Fallback, greedy_candidates, optimal_candidates
from service.selection.costs import Prices
from service.selection.groups import MergedGroup
from service.selection.noise_fit import NoisyDrop, fit_noise
from service.selection.problem import Floats, Problem, formulate
from service.selection.verification import Judged, Verification, next_step
from workers.metrics.intervals import mean, proportion_difference


@dataclass(frozen=True, eq=False)
class Outcome:
    """A configuration on all samples of the population: right (1) or wrong (0), and the KL divergence; (N,) each."""

    correct: Floats
    kl: Floats


@dataclass(frozen=True, eq=False)
class Draw:
    """One evaluation set, drawn with replacement: indices of the choice part and of the held-out part."""

    choice: np.ndarray
    held_out: np.ndarray

    @property
    def whole(self) -> "Draw":
        """Both parts together, as the one and as the other."""
        both = np.concatenate([self.choice, self.held_out])
        return Draw(both, both)


@dataclass(frozen=True, eq=False)
class Task:
    """What a rule is told beside the budget. ``outcomes``: all measurements, to be looked at through the draw alone.

    ``alone``: layer → the fallback list of the variant with only this layer in int8.
    """

    groups: tuple[MergedGroup, ...]
    prices: Prices
    interactions: tuple[Interaction, ...]
    alone: Mapping[str, Fallback]
    names: Mapping[str, str]
    draw: Draw
    outcomes: Mapping[Fallback, Outcome]

    @property
    def fp32(self) -> Fallback:
        """All layers in floating point."""
        return tuple(sorted(self.names))

    def drop(self, fallback: Fallback, part: np.ndarray) -> Interval:
        """Of the metric against fp32."""
        reference = self.outcomes[self.fp32].correct
        return proportion_difference(reference[part], self.outcomes[fallback].correct[part])

    def noise(self, fallback: Fallback) -> float:
        """The KL divergence on the choice part."""
        return float(self.outcomes[fallback].kl[self.draw.choice].mean())

    def judged(self, fallback: Fallback) -> Judged:
        """On both parts."""
        return Judged(
            choice=self._score(fallback, self.draw.choice),
            held_out=self._score(fallback, self.draw.held_out),
            noise=self.noise(fallback),
        )

    @cached_property
    def whole(self) -> "Task":
        """With all samples of the draw for the choice and for the judgement."""
        return replace(self, draw=self.draw.whole)

    @cached_property
    def plain(self) -> Problem:
        """By the layers' own KL divergences on the choice part, which add up."""
        losses = {layer: self.noise(fallback) for layer, fallback in self.alone.items()}
        return formulate(self.groups, self.prices, losses)

    @cached_property
    def interacting(self) -> Problem:
        """With what pairs of layers do beyond that."""
        losses = {layer: self.noise(fallback) for layer, fallback in self.alone.items()}
        return formulate(self.groups, self.prices, losses, self.interactions)

    @cached_property
    def curve(self) -> tuple[Candidate, ...]:
        """The Pareto curve, interactions included."""
        return optimal_candidates(self.interacting)

    @cached_property
    def additive(self) -> tuple[Candidate, ...]:
        """The Pareto curve without interactions, finer."""
        return optimal_candidates(self.plain, points=48)

    def known(self) -> tuple[NoisyDrop, ...]:
        """The single layers on the choice part."""
        return tuple(
            NoisyDrop(noise=self.noise(fallback), drop=self.drop(fallback, self.draw.choice))
            for fallback in self.alone.values()
        )

    def _score(self, fallback: Fallback, part: np.ndarray) -> VariantScore:
        own = mean(self.outcomes[fallback].correct[part])
        return VariantScore(variant="mixed", metric=own, drop=self.drop(fallback, part), measures={})


@dataclass(frozen=True)
class Claim:
    """The list that a rule says is within the budget, None where it says that it cannot tell; and what it measured."""

    fallback: Fallback | None
    measured: int


Rule = Generator[tuple[Fallback, ...], None, Claim]


def verified(
    task: Task, limit: Limit, curve: tuple[Candidate, ...], problem: Problem, *, same_samples: bool = False
) -> Rule:
    """The product's own search along a curve."""
    asked = Verification(
        algorithm="optimal",
        problem=problem,
        curve=curve,
        limit=limit,
        names=task.names,
        known=task.known(),
        same_samples=same_samples,
    )
    measured = {(): task.judged(())}
    while not isinstance(step := next_step(asked, measured), Decision):
        yield step
        measured |= {fallback: task.judged(fallback) for fallback in step}
    return Claim(step.fallback if step.status == "met" else None, len(measured))


def ours(task: Task, limit: Limit) -> Rule:
    """``optimal`` with interactions, verified on the held-out part."""
    return verified(task, limit, task.curve, task.interacting)


def greedy(task: Task, limit: Limit) -> Rule:
    """Along the greedy path by noise alone, without interactions, verified in the same way."""
    return verified(task, limit, greedy_candidates(task.plain, per_cost=False), task.plain)


def greedy_per_cost(task: Task, limit: Limit) -> Rule:
    """The same by noise per cost, conversions included."""
    return verified(task, limit, greedy_candidates(task.plain, per_cost=True), task.plain)


def naive(task: Task, limit: Limit) -> Rule:
    """``optimal``, chosen and judged on the same samples, of which it has twice as many, by the drop alone."""
    return verified(task.whole, limit, task.whole.curve, task.whole.interacting, same_samples=True)


def aimet(task: Task, limit: Limit) -> Rule:
    """AIMET's: layers by their own drops of the metric, one more in floating point until the drop is within.

    One decision to a group of layers, as AIMET's quantizer groups have; chosen and judged on the same samples.
    """
    whole = task.whole
    drops = {layer: whole.drop(fallback, whole.draw.choice).value or 0.0 for layer, fallback in task.alone.items()}
    order = sorted(range(len(task.groups)), key=lambda place: -sum(drops[each] for each in task.groups[place].layers))
    floating = whole.plain.all_int8()
    for count, place in enumerate(order):
        fallback = whole.plain.layers(floating)
        yield (fallback,)
        if limit.holds(whole.drop(fallback, whole.draw.choice)):
            return Claim(fallback, count + 1)
        floating[place] = True
    return Claim(None, len(order))


def hawq(task: Task, limit: Limit) -> Rule:
    """HAWQ-V3's: the additive integer programme, at the noise whose predicted drop is the budget; none is verified."""
    whole = task.whole
    all_int8 = NoisyDrop(noise=whole.plain.loss(whole.plain.all_int8()), drop=whole.drop((), whole.draw.choice))
    fit = fit_noise([*whole.known(), all_int8])
    fallback = next(each.fallback for each in whole.additive if fit.drop(each.noise) <= limit.max_drop)
    yield (fallback,)  # so that it can be judged; the rule does not look
    return Claim(fallback, 0)


RULES: Mapping[str, Callable[[Task, Limit], Rule]] = {
    "ours": ours,
    "greedy": greedy,
    "greedy per cost": greedy_per_cost,
    "naive": naive,
    "AIMET's": aimet,
    "HAWQ's": hawq,
}
