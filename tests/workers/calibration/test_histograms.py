"""What calibration stores comes back as it was, and shards of it add up edge by edge."""

import numpy as np
import pytest

from service.domain.errors import QuantsieveError
from tests.workers.calibration.distributions import TENSORS, counted, growing
from workers.calibration.histogram import Grid, Histogram
from workers.calibration.histograms import Histograms

EDGES = {
    "conv:0": counted(growing(30.0)),
    "zeros first, the second layer's (1)": counted([np.zeros(3, np.float32), TENSORS["uniform"]]),
    "empty": counted([]),
    "not finite": counted([np.array([1.0, np.nan, -2.5], np.float32)]),
}


def parts(histogram: Histogram) -> object:
    return histogram.grid, histogram.level, histogram.counts.tolist(), histogram.finite, histogram.extent


def test_what_was_stored_comes_back() -> None:
    found = Histograms.from_bytes(Histograms(EDGES).to_bytes())
    assert {edge: parts(each) for edge, each in found.by_edge.items()} == {
        edge: parts(each) for edge, each in EDGES.items()
    }
    assert all(each.counts.dtype == np.int64 for each in found.by_edge.values())


def test_equal_histograms_are_equal_bytes_whatever_the_order_of_edges() -> None:
    assert Histograms(EDGES).to_bytes() == Histograms(dict(reversed(EDGES.items()))).to_bytes()


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), Histograms(EDGES).to_bytes()[:-40]])
def test_damaged_bytes_are_our_own_error(content: bytes) -> None:
    with pytest.raises(QuantsieveError, match="cannot be read"):
        Histograms.from_bytes(content)


def test_shards_add_up_edge_by_edge_and_keep_an_edge_that_only_one_has_seen() -> None:
    grid = Grid.of(TENSORS["normal"])
    first, second = (counted([TENSORS[each]], grid) for each in ("normal", "log-normal"))
    merged = Histograms.merged([Histograms({"a": first, "b": first}), Histograms({"a": second, "c": second})])
    expected = {"a": counted([TENSORS["normal"], TENSORS["log-normal"]], grid), "b": first, "c": second}
    assert {edge: parts(each) for edge, each in merged.by_edge.items()} == {
        edge: parts(each) for edge, each in expected.items()
    }
