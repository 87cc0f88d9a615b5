"""The configurations that an algorithm proposes, the cheapest first; one of them is to be verified."""

from collections.abc import Mapping, Sequence
from typing import assert_never

from service.domain.layers import Frozen
from service.domain.results import Interval
from service.domain.settings import SelectionAlgorithm, SelectionSettings
from service.selection.problem import Bools, Problem
from service.selection.ranking import Ranked
from service.selection.search.greedy import greedy_path
from service.selection.search.pareto import POINTS, pareto_curve

Fallback = tuple[str, ...]


class Candidate(Frozen):
    """A configuration: the layers (ids, sorted) in floating point, its cost, and its predicted output noise.

    ``bound``: of the cost, none with as little noise has less; ``gap``: how much less, at most, as a share of the cost.
    Both None where nothing was proven.
    """

    fallback: Fallback
    cost: float
    noise: float
    bound: float | None = None
    gap: float | None = None


def candidate(problem: Problem, floating: Bools) -> Candidate:
    """One configuration, with what is predicted for it."""
    return Candidate(fallback=problem.layers(floating), cost=problem.cost(floating), noise=problem.loss(floating))


def candidates(
    problem: Problem,
    selection: SelectionSettings,
    ranking: Sequence[Ranked],
    sensitivities: Mapping[str, Interval],
) -> tuple[Candidate, ...]:
    """By an algorithm that goes by the layers; groups of which a layer falls back do so as a whole, pins hold.

    ``threshold`` and ``top_k`` propose one list, by the sensitivities (by layer id) and by the ranking; ``greedy`` the
    prefixes of the ranking. Raises ValueError for ``optimal``, which has a curve, and where no algorithm is named.
    """
    match selection.algorithm:
        case SelectionAlgorithm.THRESHOLD:
            threshold = selection.threshold or 0.0
            above = [each for each in ranking if (sensitivities[each.layer_id].value or 0.0) > threshold]
            return (_widened(problem, [each.layer_id for each in above if each.significant]),)
        case SelectionAlgorithm.TOP_K:
            return (_widened(problem, [each.layer_id for each in ranking][: selection.top_k]),)
        case SelectionAlgorithm.GREEDY:
            order = [each.layer_id for each in ranking]
            return tuple(_widened(problem, order[:length]) for length in range(len(order) + 1))
        case SelectionAlgorithm.OPTIMAL | None:
            raise ValueError(f"selection.algorithm: {selection.algorithm} goes by no order of layers")
        case _ as unknown:
            assert_never(unknown)


def greedy_candidates(problem: Problem, *, per_cost: bool, most: int | None = None) -> tuple[Candidate, ...]:
    """Along the greedy path, without those that are neither cheaper nor safer than another of it.

    ``most``: so many of its steps, evenly; all of them where it is None.
    """
    path = greedy_path(problem, per_cost=per_cost)
    every = range(len(path.order) + 1)
    steps = every if most is None else sorted({round(place * every[-1] / (most - 1)) for place in range(most)})
    found = [candidate(problem, path.configuration(each)) for each in steps]
    kept: list[Candidate] = []
    for each in sorted(found, key=lambda one: (one.cost, one.noise)):
        if not kept or each.noise < kept[-1].noise:
            kept.append(each)
    return tuple(kept)


def optimal_candidates(problem: Problem, points: int = POINTS) -> tuple[Candidate, ...]:
    """The Pareto curve, with bounds and gaps."""
    return tuple(
        candidate(problem, each.floating).model_copy(update={"bound": each.bound, "gap": each.gap})
        for each in pareto_curve(problem, points=points)
    )


def _widened(problem: Problem, layers: Sequence[str]) -> Candidate:
    inside = frozenset(layers)
    floating = problem.all_int8()
    for place, each in enumerate(problem.groups):
        if each.floating is None:
            floating[place] = not inside.isdisjoint(each.layers)
    return candidate(problem, floating)
