from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from service.domain.states import ResourceState, SweepState, UnitKind, UnitState
from service.store.tables import UnitRow
from service.store.units import Lease
from tests.workers.installation import Installation, wait_for
from workers.reconciler import HINT_AGE_SECONDS, Reconciler, reconcile


def lose(installation: Installation, kind: UnitKind) -> Lease:
    """A worker takes the next unit of this kind and is never heard of again."""
    lease = installation.run_until(kind)
    assert lease is not None
    installation.let_expire(lease)
    return lease


def age_hints(installation: Installation, seconds: float) -> None:
    with installation.context.database.write() as session:
        for unit in session.query(UnitRow).filter(UnitRow.state == UnitState.QUEUED):
            unit.published_at -= seconds


def test_an_expired_unit_is_queued_again_and_hinted_at_in_the_same_look(installation: Installation) -> None:
    sweep_id = installation.sweep()
    lease = lose(installation, UnitKind.CALIBRATE)
    installation.hints()
    reconcile(installation.context)
    unit = installation.unit(lease)
    assert (unit.state, unit.attempts, unit.owner) == (UnitState.QUEUED, 1, None)
    assert unit.token > lease.token
    assert installation.hints() == ["onnxruntime"]
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED


def test_a_hint_that_was_lost_is_published_again_and_a_fresh_one_is_not(installation: Installation) -> None:
    installation.dataset()
    reconcile(installation.context)
    assert installation.hints() == []
    age_hints(installation, HINT_AGE_SECONDS + 1)
    reconcile(installation.context)
    assert installation.hints() == ["data"]
    reconcile(installation.context)
    assert installation.hints() == []


def test_units_that_wait_for_their_turn_are_not_hinted_at_again(installation: Installation) -> None:
    for scale in (1.0, 2.0, 3.0):
        installation.dataset(scale=scale)
    for _ in range(4):
        age_hints(installation, HINT_AGE_SECONDS + 1)
        reconcile(installation.context)
        assert installation.context.hints.waiting("data") == 3
    assert installation.hints() == ["data"] * 3


def test_a_unit_that_loses_every_worker_fails_its_sweep_and_says_so(installation: Installation) -> None:
    sweep_id = installation.sweep()
    for _ in range(3):  # the first shard is first in the queue each time
        lose(installation, UnitKind.MEASURE)
        assert installation.unit_states(sweep_id)["measure"] == {UnitState.QUEUED, UnitState.LEASED}
        reconcile(installation.context)
    sweep = installation.row(sweep_id)
    assert (sweep.state, sweep.problem_code) == (SweepState.FAILED, "worker-lost")
    assert sweep.problem is not None
    assert "(measure) lost its worker 3 times" in sweep.problem
    assert "memory" in sweep.problem
    assert installation.unit_states(sweep_id)["measure"] == {UnitState.FAILED}
    assert installation.claim() is None


def test_a_check_that_loses_every_worker_rejects_the_upload_and_fails_who_waits(installation: Installation) -> None:
    model = installation.model()
    sweep_id = installation.sweep(model=model)
    for _ in range(3):
        lease = installation.claim(queues=["onnxruntime"])
        assert lease is not None
        assert lease.kind is UnitKind.CHECK_MODEL
        installation.let_expire(lease)
        reconcile(installation.context)
    rejected = installation.resource(model)
    assert rejected.state == ResourceState.REJECTED
    assert rejected.problem is not None
    assert "(check_model) lost its worker 3 times" in rejected.problem
    sweep = installation.row(sweep_id)
    assert (sweep.state, sweep.problem_code) == (SweepState.FAILED, "rejected-file")
    assert sweep.problem == f"the model was rejected: {rejected.problem}"


def test_a_cancel_that_its_dead_worker_never_saw_is_carried_out(installation: Installation) -> None:
    sweep_id = installation.sweep()
    lease = installation.run_until(UnitKind.VERIFY)
    assert lease is not None
    installation.cancel(sweep_id)
    reconcile(installation.context)
    assert installation.state(sweep_id) is SweepState.RUNNING  # its worker may still see it
    installation.let_expire(lease)
    reconcile(installation.context)
    assert installation.state(sweep_id) is SweepState.CANCELLED
    assert installation.unit_states(sweep_id)["verify"] == {UnitState.CANCELLED}


def test_an_ended_sweep_is_left_alone(installation: Installation) -> None:
    installation.sweep()
    installation.run_until()
    before = installation.everything()
    reconcile(installation.context)
    assert installation.everything() == before


@pytest.mark.parametrize("last_attempt", [False, True], ids=["to be queued again", "to be failed"])
def test_reconcilers_at_the_same_time_do_what_one_would(installation: Installation, last_attempt: bool) -> None:
    sweep_id = installation.sweep()
    leases = [installation.run_until(UnitKind.MEASURE) for _ in range(3)]
    with installation.context.database.write() as session:
        for lease in leases:
            assert lease is not None
            unit = session.get_one(UnitRow, lease.unit_id)
            unit.lease_expires_at = 0.0
            unit.attempts = 3 if last_attempt else 1
    installation.hints()
    several = [installation.again(f"wrk_{number}") for number in range(4)]
    barrier = Barrier(len(several))

    def look(each: Installation) -> None:
        barrier.wait()
        reconcile(each.context)

    with ThreadPoolExecutor(len(several)) as pool:
        list(pool.map(look, several))
    for each in several:
        each.context.database.close()
    units = [installation.unit(lease) for lease in leases if lease is not None]
    if last_attempt:
        sweep = installation.row(sweep_id)
        assert (sweep.state, sweep.problem_code) == (SweepState.FAILED, "worker-lost")
        assert {each.state for each in units} == {UnitState.FAILED}
        assert installation.hints() == []
    else:
        assert {(each.state, each.attempts, each.token) for each in units} == {(UnitState.QUEUED, 1, 2)}
        assert installation.hints() == ["onnxruntime"] * 3


def test_the_thread_outlives_a_database_that_is_not_there_yet(tmp_path, caplog) -> None:
    early = Installation.at(tmp_path / "new", reconcile_seconds=0.02)
    thread = Reconciler(early.context)
    thread.start()
    wait_for(lambda: "reconciling failed" in caplog.text)
    early.context.database.migrate()
    early.dataset()
    age_hints(early, HINT_AGE_SECONDS + 1)
    wait_for(lambda: early.hints() == ["data"])
    thread.stop()
    thread.join()
    early.context.database.close()
