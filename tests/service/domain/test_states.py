import itertools

import pytest

from service.domain.states import (
    TERMINAL_SWEEP_STATES,
    IllegalMove,
    SelectionState,
    SweepState,
    move_selection,
    move_sweep,
)

ALLOWED = {
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
}
OF_SELECTIONS = {
    ("predicted", "queued"),
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "done"),
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


@pytest.mark.parametrize(("current", "target"), itertools.product(SelectionState, SelectionState))
def test_a_selection_makes_the_moves_of_the_table_and_no_other(current: SelectionState, target: SelectionState) -> None:
    if (current, target) in OF_SELECTIONS:
        assert move_selection(current, target) is target
        return
    with pytest.raises(IllegalMove, match=f"cannot go from {current} to {target}"):
        move_selection(current, target)


def test_a_prediction_is_no_end_and_nothing_is_done_for_it() -> None:
    assert {each for each in SelectionState if each.terminal} == {"done", "failed", "cancelled"}
    assert {each for each in SelectionState if each.working} == {"queued", "running"}
