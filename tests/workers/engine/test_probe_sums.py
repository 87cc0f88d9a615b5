"""The sums that shards hand in."""

from dataclasses import replace

import numpy as np
import pytest

from service.domain.errors import QuantsieveError
from tests.workers.engine.probed import probed
from workers.engine.probe_sums import PairSums, ProbeSums


def drawn(samples: int, seed: int) -> ProbeSums:
    rng = np.random.default_rng(seed)
    # whole numbers: their sums are exact in any order
    slopes = rng.integers(-3, 4, (2, samples, 3)).astype(np.float64) * 2
    return probed(slopes, kl=slopes[..., ::-1], loss=slopes[0], failures={"c": "no kernel"})


def assert_same(one: ProbeSums, other: ProbeSums) -> None:
    assert one.to_bytes() == other.to_bytes()


def test_the_sums_are_those_of_each_sample_by_itself() -> None:
    slopes = np.random.default_rng(0).standard_normal((3, 5, 4))
    found = PairSums.of(slopes)
    pairs = np.einsum("pni,pnj->nij", slopes, slopes) / 3  # (samples, L, L)
    np.testing.assert_allclose(found.first, pairs.sum(axis=0))
    np.testing.assert_allclose(found.second, (pairs**2).sum(axis=0))
    np.testing.assert_allclose(found.third, (np.diagonal(pairs, axis1=1, axis2=2) ** 3).sum(axis=0))


def test_shards_add_up_to_the_whole_exactly() -> None:
    rng = np.random.default_rng(0)
    slopes = rng.integers(-3, 4, (2, 9, 3)).astype(np.float64) * 2
    whole = probed(slopes, kl=slopes, loss=slopes[0])
    halves = [probed(each, kl=each, loss=each[0]) for each in (slopes[:, :4], slopes[:, 4:])]
    merged = halves[0] + halves[1]
    assert merged.samples == 9
    assert merged.spread_freedom == 3 + 4, "each part has a mean of its own"
    assert_same(merged, replace(whole, spread=merged.spread, spread_freedom=7))


def test_the_order_of_the_shards_does_not_matter() -> None:
    first, second = drawn(4, 0), drawn(6, 1)
    assert_same(first + second, second + first)


def test_failures_and_constants_of_every_shard_stay() -> None:
    first, second = drawn(4, 0), replace(drawn(4, 1), failures={"a": "NaN"}, constants=("floor",))
    found = first + second
    assert found.failures == {"c": "no kernel", "a": "NaN"}
    assert found.constants == ("round", "floor")


@pytest.mark.parametrize(
    "change",
    [{"layers": ("x", "y", "z")}, {"probes": 5}, {"kl": None}, {"loss": None}],
    ids=lambda each: next(iter(each)),
)
def test_shards_that_were_probed_for_something_else_do_not_add_up(change: dict) -> None:
    with pytest.raises(ValueError, match="probed for other"):
        drawn(4, 0) + replace(drawn(4, 1), **change)


@pytest.mark.parametrize("scores", [True, False], ids=["class scores", "other output"])
def test_stored_sums_are_read_back(scores: bool) -> None:
    kept = drawn(4, 0) if scores else replace(drawn(4, 0), kl=None, loss=None)
    found = ProbeSums.from_bytes(kept.to_bytes())
    assert_same(found, kept)
    assert (found.layers, found.failures, found.constants) == (kept.layers, kept.failures, kept.constants)
    assert (found.kl is None, found.loss is None) == (not scores, not scores)
    np.testing.assert_array_equal(found.mse.second, kept.mse.second)


@pytest.mark.parametrize("damage", [lambda whole: whole[:100], lambda whole: b"", lambda whole: whole[40:]])
def test_damaged_sums_are_refused(damage) -> None:
    with pytest.raises(QuantsieveError) as caught:
        ProbeSums.from_bytes(damage(drawn(4, 0).to_bytes()))
    assert caught.value.code == "damaged-result"
