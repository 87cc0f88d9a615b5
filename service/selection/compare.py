"""Two sweeps' tables of the same layers: how far their orders agree, and which layers disagree beyond noise."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata

from service.domain.comparison import Disagreement, Places, TableComparison
from service.domain.results import Interval


def compare_tables(first: Mapping[str, Interval], second: Mapping[str, Interval]) -> TableComparison:
    """From layer name → what it was ranked by. A layer without a number counts as missing; those in one are named."""
    both = [layer for layer in first if layer in second and _has(first[layer]) and _has(second[layer])]
    one, other = ([table[layer] for layer in both] for table in (first, second))
    places = {layer: pair for layer, *pair in zip(both, _places(one), _places(other), strict=True)}
    apart = [
        Disagreement(layer=layer, first=mine, second=theirs)
        for layer, (mine, theirs) in places.items()
        if mine.worst < theirs.best or theirs.worst < mine.best
    ]
    return TableComparison(
        layers=len(both),
        spearman=spearman([each.value or 0.0 for each in one], [each.value or 0.0 for each in other]),
        disagreements=tuple(sorted(apart, key=lambda each: -abs(each.first.rank - each.second.rank))),
        only_first=tuple(layer for layer in first if layer not in places and _has(first[layer])),
        only_second=tuple(layer for layer in second if layer not in places and _has(second[layer])),
    )


def spearman(one: list[float], other: list[float]) -> float | None:
    """The correlation of ranks, ties at the mean of theirs; None where it is not defined."""
    if len(one) < 2:
        return None
    ranks = [rankdata(each) - (len(each) + 1) / 2 for each in (one, other)]
    size = float(np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum()))
    return float(ranks[0] @ ranks[1]) / size if size else None


def _has(found: Interval) -> bool:
    return found.value is not None


def _places(values: list[Interval]) -> list[Places]:
    ranks = rankdata([-(each.value or 0.0) for each in values]) if values else np.zeros(0)
    low = np.array([_end(each.low, each) for each in values])
    high = np.array([_end(each.high, each) for each in values])
    return [
        Places(
            rank=float(rank),
            best=1 + int((low > high[index]).sum()),
            worst=len(values) - int((high < low[index]).sum()),
        )
        for index, rank in enumerate(ranks)
    ]


def _end(end: float | None, found: Interval) -> float:
    """Of an interval; a number without one is taken as it is."""
    return end if end is not None else (found.value or 0.0)
