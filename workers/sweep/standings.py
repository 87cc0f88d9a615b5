"""What is sure of the layers' order in a race: of that order which an exact sweep would rank them in on all samples.

By its rule (service/selection/ranking.py) a metric that counts answers ranks the layers first whose drop is
significant, by drop, and the rest by KL divergence or output MSE. So whether a layer will be significant is part of
the race.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from service.domain.layers import ALL_INT8, FP32, LAYER_PREFIX
from service.domain.settings import SweepMode
from service.selection.ranking import CONTINUOUS, Ranked
from workers.engine import foreseen, racing
from workers.metrics.draw import Draw
from workers.metrics.scores import Scoreboard
from workers.metrics.task_metric import TaskMetric

Signs = npt.NDArray[np.int8]


def tests(metric: TaskMetric, mode: SweepMode, pairs: int, layers: int) -> int:
    """How many tests the order of so many pairs of layers takes at one look."""
    if not metric.is_divergence:
        return 2 * pairs + layers
    return pairs if mode is SweepMode.ONE_ON else pairs + layers


class Standings:
    """Of the layers of ``ranking``, which are in the order of what was measured so far.

    ``looks``: after how many samples each was; ``level``: the error rate of one test.
    """

    def __init__(
        self,
        board: Scoreboard,
        ranking: Sequence[Ranked],
        metric: TaskMetric,
        mode: SweepMode,
        *,
        continuous: str,
        looks: tuple[int, ...],
        level: float,
        draw: Draw,
    ) -> None:
        self._board, self._metric, self._mode = board, metric, mode
        self._looks, self._level, self._draw = looks, level, draw
        layers = [each.layer_id for each in ranking]
        assert metric.measure is not None
        self._race = self._make_race(layers, metric.measure, higher_is_better=metric.higher_is_better)
        self._counted = all(bool(np.isin(each, (-1.0, 0.0, 1.0)).all()) for each in self._race.values.values())
        self._significant = np.array([self._significance(each) for each in layers], dtype=np.int8)
        before = self._race.above()
        if not metric.is_divergence:
            more = self._make_race(layers, continuous, higher_is_better=False).above()
            # row before column, whichever of what is not known of their significance comes true
            sure, noise = (self._significant == 1)[:, None], (self._significant == -1)[None]
            before = (sure & before) | (sure & noise) | (noise & more)
        order = racing.in_order(range(len(layers)), before)
        self._before = before[np.ix_(order, order)]
        self._of_order = list(order)
        self._significant = self._significant[self._of_order]
        self.layers = tuple(layers[each] for each in order)
        flags = {-1: False, 1: True}
        self.ranking = tuple(
            ranking[each].model_copy(update={"significant": flags.get(int(sign), ranking[each].significant)})
            for each, sign in zip(order, self._significant, strict=True)
        )

    def significant(self) -> Signs:
        """Of each layer: 1 surely significant, -1 surely not, 0 not known."""
        return self._significant

    def sides(self, length: int) -> Signs:
        """Of each layer: 1 surely among so many first ones, -1 surely not, 0 not known."""
        return racing.sides(self._before, length)

    def apart(self, length: int) -> racing.Bools:
        """Of each of the first ``length`` layers (rows) and each other: whether they are surely not to be swapped."""
        sides = self.sides(length)
        # who is surely first or surely not needs no order among the others
        known = (sides[:length, None] != 0) | (sides[None, length:] != 0)
        found: racing.Bools = self._before[:length, length:] | known
        return found

    def apart_or_tied(self, length: int) -> racing.Bools:
        """The same, or the exact sweep's own intervals of the two surely overlap."""
        either = self._race.not_told_below()[np.ix_(self._of_order, self._of_order)]
        found: racing.Bools = self.apart(length) | (either & either.T)[:length, length:]
        return found

    def possible(self, length: int, most: int) -> list[frozenset[str]] | None:
        """The sets that the first so many layers can be, by what is sure; None where they are more than ``most``."""
        sides = self.sides(length)
        inside = [layer for layer, side in zip(self.layers, sides, strict=True) if side == 1]
        open_ = [layer for layer, side in zip(self.layers, sides, strict=True) if side == 0]
        places = length - len(inside)
        if comb(len(open_), places) > most:
            return None
        return [frozenset((*inside, *each)) for each in combinations(open_, places)]

    def _make_race(self, layers: Sequence[str], measure: str, *, higher_is_better: bool) -> racing.Race:
        # SQNR falls just as the noise grows: its measure is the output MSE
        higher = higher_is_better and measure != "mse"
        values = {each: self._drops(each, measure, higher_is_better=higher) for each in layers}
        return racing.Race(values, self._looks, self._level, self._draw)

    def _drops(self, layer: str, measure: str, *, higher_is_better: bool) -> racing.Floats:
        name = LAYER_PREFIX + layer
        mine, against = (name, FP32) if self._mode is SweepMode.ONE_ON else (ALL_INT8, name)
        return self._board.drops(mine, against=against, measure=measure, higher_is_better=higher_is_better)

    def _significance(self, layer: str) -> int:
        if self._metric.is_divergence and self._mode is SweepMode.ONE_ON:
            return 0  # by its value: no samples to come can take it back
        return foreseen.significance(self._race.values[layer], self._draw, self._level, counted=self._counted)


def continuous_of(measures: Sequence[str]) -> str:
    """What tells ties apart, of the measures that there are."""
    return next(each for each in CONTINUOUS if each in measures)
