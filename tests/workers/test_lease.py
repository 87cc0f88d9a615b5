import time

import pytest

from service.domain.errors import LeaseLost, SweepCancelled
from service.domain.states import SweepState, UnitKind, UnitState
from tests.workers.installation import Installation, wait_for
from workers.lease import HeldLease
from workers.reconciler import reconcile
from workers.sweep.runner import run_unit


def ended(held: HeldLease) -> bool:
    try:
        held.checkpoint()
    except (LeaseLost, SweepCancelled):
        return True
    return False


def test_heartbeats_extend_the_lease_and_record_the_progress(installation: Installation) -> None:
    installation.dataset()
    lease = installation.claim(lease_seconds=0.5)
    assert lease is not None
    with HeldLease(installation.context, lease) as held:
        held.checkpoint(0.25)
        wait_for(lambda: installation.unit(lease).progress == 0.25)
        time.sleep(0.6)  # longer than the lease was at first
        reconcile(installation.context)
        held.checkpoint()
    assert installation.unit(lease).state == UnitState.LEASED


def test_progress_never_says_done_before_the_result_is_there(installation: Installation) -> None:
    installation.dataset()
    lease = installation.claim()
    assert lease is not None
    with HeldLease(installation.context, lease) as held:
        held.checkpoint(1.0)
        wait_for(lambda: installation.unit(lease).progress > 0)
    assert installation.unit(lease).progress < 1


def test_work_whose_lease_was_taken_over_stops_at_the_next_checkpoint(installation: Installation) -> None:
    installation.dataset()
    lease = installation.claim()
    assert lease is not None
    with HeldLease(installation.context, lease) as held:
        installation.let_expire(lease)
        # whether the expiry or the next heartbeat came first, the claim of another worker takes the lease away
        while installation.unit(lease).state == UnitState.LEASED and installation.unit(lease).token == lease.token:
            installation.let_expire(lease)
            reconcile(installation.context)
        wait_for(lambda: ended(held))
        with pytest.raises(LeaseLost):
            held.checkpoint()


def test_work_of_a_cancelled_sweep_stops_at_the_next_checkpoint(installation: Installation) -> None:
    sweep_id = installation.sweep()
    lease = installation.run_until(UnitKind.CALIBRATE)
    assert lease is not None
    with HeldLease(installation.context, lease) as held:
        installation.cancel(sweep_id)
        wait_for(lambda: ended(held))
        with pytest.raises(SweepCancelled):
            held.checkpoint()


def test_no_heartbeat_comes_after_the_work(installation: Installation) -> None:
    installation.dataset()
    lease = installation.claim()
    assert lease is not None
    with HeldLease(installation.context, lease):
        pass
    before = installation.unit(lease).lease_expires_at
    time.sleep(0.1)
    assert installation.unit(lease).lease_expires_at == before


@pytest.mark.parametrize("kind", [*(each for each in UnitKind)])
def test_a_worker_that_lost_its_lease_writes_nothing(installation: Installation, kind: UnitKind) -> None:
    """It wakes up, does all its work, and leaves every table as the other worker has it."""
    sweep_id = installation.sweep_with(kind)
    cache = installation.cache(b"TRT-8510-MinMaxCalibration\nx: 3ca3d70a\n")
    installation.conversion(model=installation.row(sweep_id).model_id, calibration=cache)
    late = installation.run_until(kind)
    assert late is not None
    installation.let_expire(late)
    other = installation.again()
    reconcile(other.context)
    mine = other.claim()
    while mine is not None and mine.unit_id != late.unit_id:  # another's turn comes first
        run_unit(other.context, mine)
        mine = other.claim()
    assert mine is not None
    before = installation.everything()
    run_unit(installation.context, late)
    assert installation.everything() == before
    run_unit(other.context, mine)
    other.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED
    other.context.database.close()
