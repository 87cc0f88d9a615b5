"""The histograms of all activation edges that one shard of the calibration samples leaves: to add up and to store."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from service.domain.results import Extent
from workers.calibration.histogram import MOST_BINS, Grid, Histogram
from workers.metrics.packed import DAMAGES, Array, damaged, pack, unpack

VERSION = 1


@dataclass(frozen=True)
class Histograms:
    """Activation edge → histogram."""

    by_edge: Mapping[str, Histogram]

    @classmethod
    def merged(cls, shards: Sequence[Self]) -> Self:
        """All that the shards have seen; raises ValueError where they did not count on the same grids."""
        found: dict[str, Histogram] = {}
        for shard in shards:
            for edge, histogram in shard.by_edge.items():
                found[edge] = found[edge].merge(histogram) if edge in found else histogram
        return cls(found)

    def to_bytes(self) -> bytes:
        """For the blob store; the same bytes for the same histograms."""
        return pack(VERSION, *self.to_parts())

    def to_parts(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What JSON can hold of them, and the counts."""
        edges = sorted(self.by_edge)
        header = {"edges": [{"edge": each, **_header(self.by_edge[each])} for each in edges]}
        return header, {str(index): self.by_edge[each].counts for index, each in enumerate(edges)}

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What ``to_bytes`` wrote; raises QuantsieveError for anything else."""
        try:
            return cls.from_parts(*unpack(VERSION, content))
        except DAMAGES as error:
            raise damaged(error) from error

    @classmethod
    def from_parts(cls, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """What ``to_parts`` gave; raises LookupError, TypeError or ValueError for anything else."""
        edges = enumerate(header["edges"])
        return cls({str(each["edge"]): _restored(each, arrays[str(index)]) for index, each in edges})


def _header(histogram: Histogram) -> dict[str, object]:
    extent = histogram.extent
    return {
        "first": histogram.grid.first,
        "most": histogram.grid.most,
        "level": histogram.level,
        "finite": histogram.finite,
        "extent": None if extent is None else [extent.low, extent.high],
    }


def _restored(header: Mapping[str, Any], counts: Array) -> Histogram:
    extent = None if header["extent"] is None else Extent(low=header["extent"][0], high=header["extent"][1])
    grid = Grid(float(header["first"]), int(header["most"]))
    if counts.ndim != 1 or not 0 < len(counts) <= MOST_BINS or not 0.0 < grid.first < math.inf:
        raise ValueError(f"no histogram has counts of shape {counts.shape} on {grid}")
    return Histogram.restored(
        grid,
        int(header["level"]),
        counts.astype(np.int64),
        finite=bool(header["finite"]),
        extent=extent,
    )
