import itertools

import pytest

from service.domain.states import TERMINAL_SWEEP_STATES, IllegalMove, SweepState, move_sweep

ALLOWED = {
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
}


@pytest.mark.parametrize(("current", "target"), itertools.product(SweepState, SweepState))
def test_a_sweep_makes_the_moves_of_the_table_and_no_other(current: SweepState, target: SweepState) -> None:
    if (current, target) in ALLOWED:
        assert move_sweep(current, target) is target
        return
    with pytest.raises(IllegalMove, match=f"cannot go from {current} to {target}"):
        move_sweep(current, target)


def test_what_has_ended_stays_so() -> None:
    assert (
        {each for each in SweepState if each.terminal} == TERMINAL_SWEEP_STATES == {"succeeded", "failed", "cancelled"}
    )
