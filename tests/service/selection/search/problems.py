"""Problems made for tests, and the truth of the small ones."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from service.selection.groups import MergedGroup
from service.selection.problem import Bools, Floats, GroupConversion, GroupInteraction, Problem


def problem(
    losses: Sequence[float],
    costs: Sequence[float] | None = None,
    *,
    conversions: Sequence[GroupConversion] = (),
    interactions: Sequence[GroupInteraction] = (),
    fixed: dict[int, bool] | None = None,
    base: float = 0.0,
) -> Problem:
    """Groups g0, g1, ... of one layer each; without ``costs`` each costs 1."""
    groups = [MergedGroup(layers=(f"g{place}",), floating=(fixed or {}).get(place)) for place in range(len(losses))]
    return Problem(
        groups=tuple(groups),
        base=base,
        costs=np.array(costs if costs is not None else [1.0] * len(losses), dtype=float),
        losses=np.array(losses, dtype=float),
        conversions=tuple(conversions),
        interactions=tuple(interactions),
    )


def configurations(asked: Problem) -> Bools:
    """All that the pins allow, (k, n)."""
    n = len(asked.groups)
    every = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    for place, floating in asked.fixed.items():
        every = every[every[:, place] == floating]
    return every


def table(asked: Problem) -> tuple[Floats, Floats]:
    """The costs and losses of all configurations, (k,) each, from their definitions."""
    every = configurations(asked)
    costs = asked.base + every @ asked.costs
    for each in asked.conversions:
        costs += each.cost * (every[:, list(each.targets)] != every[:, [each.source]]).any(axis=1)
    losses = ~every @ asked.losses
    for pair in asked.interactions:
        losses += pair.value * (~every[:, pair.first] & ~every[:, pair.second])
    return costs, np.maximum(losses, 0.0)


NUMBERS = st.integers(0, 20).map(float) | st.floats(0, 20).map(lambda each: round(each, 3))


@st.composite
def problems(draw: st.DrawFn, most: int = 8, *, signs: bool = True) -> Problem:
    """Of up to ``most`` groups, with conversions, interactions of both signs, pins, and costs that may be negative."""
    n = draw(st.integers(1, most))
    place = st.integers(0, n - 1)
    conversions, interactions = [], []
    if n > 1:
        for source in draw(st.lists(place, max_size=n, unique=True)):
            readers = draw(st.lists(place.filter(lambda each, source=source: each != source), min_size=1, max_size=3))
            conversions.append(GroupConversion(source, tuple(sorted(set(readers))), draw(NUMBERS)))
        pairs = draw(st.lists(st.tuples(place, place).filter(lambda each: each[0] < each[1]), max_size=8, unique=True))
        value = st.floats(-5 if signs else 0, 5).map(lambda each: round(each, 3))
        interactions = [GroupInteraction(*pair, draw(value)) for pair in pairs]
    costs = draw(st.lists(NUMBERS | st.floats(-3, 0), min_size=n, max_size=n))
    return problem(
        draw(st.lists(NUMBERS, min_size=n, max_size=n)),
        costs,
        conversions=conversions,
        interactions=[each for each in interactions if each.value],
        fixed=draw(st.dictionaries(place, st.booleans(), max_size=2)),
        base=draw(NUMBERS),
    )
