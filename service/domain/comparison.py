"""How far the layer tables of two sweeps agree."""

from service.domain.layers import Frozen


class Places(Frozen):
    """A layer's rank in a table, 1 the most sensitive (ties share the mean of theirs).

    And the ranks that intervals allow: ``best`` has the layers above it that surely are, ``worst`` all that may be.
    """

    rank: float
    best: int
    worst: int


class Disagreement(Frozen):
    """A layer (by name) that lies elsewhere in each table, whatever the intervals leave open."""

    layer: str
    first: Places
    second: Places


class TableComparison(Frozen):
    """How far two tables agree.

    ``layers``: how many have a number in both. ``spearman``: of their values, with ties; None for fewer than two
    layers, and where all of one table are equal. ``disagreements``: the farthest apart first.
    """

    layers: int
    spearman: float | None
    disagreements: tuple[Disagreement, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
