"""The question in numbers: groups of layers, what each configuration costs, and the loss that is predicted for it.

A configuration is a vector over the groups, True where the group runs in floating point. With q = 1 − that vector:

    loss = max(0, Σ_g loss_g q_g + Σ_(g,h) interaction_gh q_g q_h)
    cost = base + Σ_g cost_g (1 − q_g) + Σ over conversions of cost · [a reader differs from the source]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.domain.results import Interaction
from service.selection.costs import Prices
from service.selection.groups import MergedGroup

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ROUNDING = 1e-9
"""Relative: sums of the same numbers in another order differ by less, and are equal."""


@dataclass(frozen=True)
class GroupConversion:
    """Paid where one of ``targets`` runs in another precision than ``source`` (places of groups)."""

    source: int
    targets: tuple[int, ...]
    cost: float


@dataclass(frozen=True)
class GroupInteraction:
    """What two groups (places, the smaller first) in int8 add to the loss beyond the sum of each; may be negative."""

    first: int
    second: int
    value: float


@dataclass(frozen=True, eq=False)
class Problem:
    """n groups, and all that their costs and losses hang on.

    ``costs``: (n,) what a group adds to ``base`` by running in floating point, conversions apart; ``losses``: (n,) not
    negative. ``notes``: what the prediction leaves out, in sentences.

    A group without layers stands for those that are not decided about (excluded, failed): they are in floating point.
    """

    groups: tuple[MergedGroup, ...]
    base: float
    costs: Floats
    losses: Floats
    conversions: tuple[GroupConversion, ...] = ()
    interactions: tuple[GroupInteraction, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fixed(self) -> dict[int, bool]:
        """The groups (places) that the caller pinned → whether they run in floating point."""
        return {place: each.floating for place, each in enumerate(self.groups) if each.floating is not None}

    def cost(self, floating: Bools) -> float:
        """Of a configuration, (n,)."""
        paid = sum(
            each.cost
            for each in self.conversions
            if any(floating[target] != floating[each.source] for target in each.targets)
        )
        return self.base + float(self.costs[floating].sum()) + paid

    def loss(self, floating: Bools) -> float:
        """Predicted for a configuration, (n,)."""
        pairs = sum(each.value for each in self.interactions if not (floating[each.first] or floating[each.second]))
        return max(0.0, float(self.losses[~floating].sum()) + pairs)

    def layers(self, floating: Bools) -> tuple[str, ...]:
        """The layers (ids) in floating point, sorted."""
        return tuple(
            sorted(layer for each, up in zip(self.groups, floating, strict=True) if up for layer in each.layers)
        )

    def configuration(self, layers: Iterable[str]) -> Bools:
        """(n,) with exactly these layers (ids) in floating point; raises ValueError where a group would be split."""
        inside = frozenset(layers)
        for each in self.groups:
            if 0 < len(inside.intersection(each.layers)) < len(each.layers):
                raise ValueError(f"layers {', '.join(each.layers)} share one precision")
        return np.array([inside.issuperset(each.layers) for each in self.groups], dtype=bool)

    def all_int8(self) -> Bools:
        """(n,) with as much in int8 as the pins allow."""
        return np.array([bool(each.floating) for each in self.groups], dtype=bool)

    def all_floating(self) -> Bools:
        """(n,) with as much in floating point as the pins allow."""
        return np.array([each.floating is not False for each in self.groups], dtype=bool)


def within(value: float, limit: float) -> bool:
    """Whether the value is at most the limit, but for rounding."""
    return value <= limit + ROUNDING * abs(limit)


def formulate(
    groups: Sequence[MergedGroup],
    prices: Prices,
    losses: Mapping[str, float],
    interactions: Iterable[Interaction] = (),
) -> Problem:
    """The problem of these groups, by layer id: what each layer's int8 alone adds to the loss, and pairs of them.

    Of interactions the ``shrunk`` value counts, all of one measure: that of ``losses``. Layers that have a price and
    are in no group run in floating point. Raises ValueError where a loss is negative or not finite.
    """
    decided = {layer: index for index, each in enumerate(groups) for layer in each.layers}
    others = [layer for layer in prices.int8 if layer not in decided]
    if others:
        groups = [*groups, MergedGroup(layers=(), floating=True)]
    place = decided | dict.fromkeys(others, len(groups) - 1)
    own, costs = np.zeros(len(groups)), np.zeros(len(groups))
    base = sum(prices.floating[layer] for layer in others)
    for layer, index in decided.items():
        if not (0 <= losses[layer] < float("inf")):
            raise ValueError(f"losses: {layer} has {losses[layer]}; a loss is at least 0 and finite")
        own[index] += losses[layer]
        base += prices.int8[layer]
        costs[index] += prices.floating[layer] - prices.int8[layer]
    pairs: dict[tuple[int, int], float] = {}
    for each in interactions:
        if each.shrunk == 0 or not all(layer in decided for layer in each.layers):
            continue
        one, other = sorted(place[layer] for layer in each.layers)
        if one == other:
            own[one] += each.shrunk
        else:
            pairs[one, other] = pairs.get((one, other), 0.0) + each.shrunk
    return Problem(
        groups=tuple(groups),
        base=base,
        costs=costs,
        losses=np.maximum(own, 0.0),
        conversions=_between_groups(prices, place),
        interactions=tuple(GroupInteraction(*key, value) for key, value in pairs.items() if value != 0),
        notes=prices.notes,
    )


def _between_groups(prices: Prices, place: Mapping[str, int]) -> tuple[GroupConversion, ...]:
    found = []
    for each in prices.conversions:
        source = place[each.source]
        targets = {place[target] for target in each.targets} - {source}
        if targets:
            found.append(GroupConversion(source, tuple(sorted(targets)), each.cost))
    return tuple(found)
