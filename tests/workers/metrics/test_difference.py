import numpy as np
import pytest

from workers.metrics.difference import max_abs, relative_rms


@pytest.mark.parametrize(
    ("found", "expected", "relative", "largest"),
    [
        ([3.0, 4.0], [3.0, 4.5], 0.5 / np.hypot(3.0, 4.5), 0.5),
        ([0.0, 0.0], [0.0, 0.0], 0.0, 0.0),
        ([1e-9, 0.0], [0.0, 0.0], np.inf, 1e-9),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0, 0.0),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf, np.inf),
        ([np.nan, 1.0], [1.0, 1.0], np.inf, np.inf),
        ([], [], 0.0, 0.0),
    ],
    ids=["different", "zeros", "not zero", "NaN in both", "infinite apart", "NaN in one", "nothing"],
)
def test_both_differences_are_defined_at_their_edges(
    found: list[float], expected: list[float], relative: float, largest: float
) -> None:
    assert relative_rms(np.array(found), np.array(expected)) == pytest.approx(relative)
    assert max_abs(np.array(found), np.array(expected)) == pytest.approx(largest)
