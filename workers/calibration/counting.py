"""The pass over calibration samples: the first batch fixes every edge's grid, and is counted where it is asked for."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from workers.calibration.histogram import Array, Grid, Histogram

Item = TypeVar("Item")


class Counting:
    """Counts what it is shown. Batches go through ``followed``, so that it is known whose tensors are observed."""

    def __init__(self, *, first_counts: bool) -> None:
        self._first_counts = first_counts
        self._grids: dict[str, Grid] = {}
        self._in_first = True
        self.histograms: dict[str, Histogram] = {}

    def followed(self, batches: Iterable[Item]) -> Iterator[Item]:
        """The batches, one by one as they are run."""
        for index, batch in enumerate(batches):
            self._in_first = index == 0
            yield batch

    def observe(self, edge: str, tensor: Array) -> None:
        """Fix the grid of an edge, and count."""
        if self._in_first:
            self._grids[edge] = Grid.of(tensor)
        if self._in_first and not self._first_counts:
            return
        if edge not in self.histograms:
            # an edge that the first batch did not reach has the grid of a tensor of zeros
            self.histograms[edge] = Histogram(self._grids.get(edge, Grid.of(np.zeros(0, np.float32))))
        self.histograms[edge].update(tensor)
