"""The time left: an estimate that may be too long, but never says that nothing is left while something is."""

import pytest

from service.domain.states import Phase, SelectionState, SweepState, UnitKind
from service.store.progress import LEAST_SECONDS, Progress, Round, compute, compute_selection

MEASURED = Round(UnitKind.MEASURE, 0, 4, 4, 100.0, 100.0, 100.0)


def verify(round_: int, done: float, cost: float = 10.0) -> Round:
    return Round(UnitKind.VERIFY, round_, 2, int(2 * done / cost), cost, done, 120.0)


def eta(phase: Phase, clock: float, *rounds: Round) -> float | None:
    return compute([MEASURED, *rounds], SweepState.RUNNING, phase, clock).eta_seconds


def test_the_first_selection_expects_a_verification() -> None:
    assert eta(Phase.SELECT, 120.0) == 3.0  # 100 in 20 s, and 15 expected


def test_a_round_is_followed_by_another_for_all_we_know() -> None:
    assert eta(Phase.VERIFY, 121.0, verify(1, 5.0)) == 3.0  # 105 in 21 s; 5 of the round, and another 10
    assert eta(Phase.SELECT, 122.0, verify(1, 10.0)) == 2.0
    assert eta(Phase.VERIFY, 124.0, verify(1, 10.0), verify(2, 10.0, cost=50.0)) == 18.0  # 120 in 24 s; 40 + 50


@pytest.mark.parametrize("phase", [Phase.MEASURE, Phase.SELECT, Phase.VERIFY, Phase.REPORT])
def test_a_sweep_that_runs_is_never_said_to_take_no_time(phase: Phase) -> None:
    # the whole table in a hundredth of a second
    found = eta(phase, 100.01, verify(1, 10.0) if phase is Phase.VERIFY else verify(0, 0.0, cost=0.001))
    assert found == LEAST_SECONDS


def test_the_report_is_nearly_the_end() -> None:
    assert eta(Phase.REPORT, 130.0, verify(1, 10.0)) == LEAST_SECONDS


def test_a_sweep_that_probes_first_never_runs_back() -> None:
    def at(phase: Phase, *rounds: Round) -> float:
        return compute(rounds, SweepState.RUNNING, phase, 140.0).fraction

    probed = Round(UnitKind.PROBE, 0, 2, 1, 60.0, 30.0, 100.0)
    done = Round(UnitKind.PROBE, 0, 2, 2, 60.0, 60.0, 100.0)
    measuring = [Round(UnitKind.MEASURE, 0, 2, int(part // 15), 30.0, part, 120.0) for part in (0.0, 15.0)]
    fractions = [at(Phase.PROBE, probed), *(at(Phase.MEASURE, done, each) for each in measuring)]
    assert fractions == sorted(fractions)
    assert fractions[0] < fractions[1] < fractions[2] < 0.85
    assert at(Phase.MEASURE, measuring[0]) == 0.07


def test_a_selection_is_all_verification_and_never_runs_back() -> None:
    def at(*rounds: Round) -> Progress:
        return compute_selection(rounds, SelectionState.RUNNING, 124.0)

    step = Round(UnitKind.SELECT, 0, 1, 1, 0.0, 0.0, 119.0)
    looks = [at(step), at(step, verify(1, 5.0)), at(step, verify(1, 10.0)), at(step, verify(1, 10.0), verify(2, 5.0))]
    fractions = [each.fraction for each in looks]
    assert fractions == sorted(set(fractions))
    assert fractions[0] == 0.0
    assert looks[0].eta_seconds is None
    assert looks[1].eta_seconds == 12.0  # 5 in 4 s; 5 of the round, and another 10
    assert all(each.estimated for each in looks)


def test_a_selection_that_has_ended_has_nothing_left() -> None:
    rounds = [verify(1, 10.0)]
    assert compute_selection(rounds, SelectionState.DONE, 124.0) == Progress(1.0, False, 2, 2, 0.0)
    for ended in (SelectionState.FAILED, SelectionState.CANCELLED):
        assert compute_selection(rounds, ended, 124.0).eta_seconds is None
