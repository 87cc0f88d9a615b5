"""The probes' random directions."""

import numpy as np
import pytest

from workers.engine.probe_signs import signs


def test_they_are_ones_and_minus_ones_in_equal_shares() -> None:
    found = signs(0, 7, probes=3, size=10_000)
    assert (found.shape, found.dtype) == ((3, 10_000), np.float32)
    assert set(np.unique(found)) == {-1.0, 1.0}
    assert np.abs(found.mean(axis=1)).max() < 0.05, "five standard errors"


def test_the_first_probe_is_the_same_however_many_there_are() -> None:
    np.testing.assert_array_equal(signs(0, 7, probes=4, size=10)[:1], signs(0, 7, probes=1, size=10))


@pytest.mark.parametrize(("seed", "index"), [(1, 7), (0, 8)], ids=["seed", "sample"])
def test_another_seed_or_sample_has_other_directions(seed: int, index: int) -> None:
    assert not np.array_equal(signs(0, 7, probes=1, size=64), signs(seed, index, probes=1, size=64))


def test_the_probes_of_a_sample_are_orthogonal_where_their_number_and_length_are_powers_of_two() -> None:
    found = signs(0, 3, probes=4, size=16)
    np.testing.assert_array_equal(found @ found.T, 16 * np.eye(4))
