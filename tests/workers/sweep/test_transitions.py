"""How a sweep moves: phase after phase by the last unit of each, to an end that nothing changes."""

import threading
from collections.abc import Callable

import pytest

from service.domain.states import TERMINAL_SWEEP_STATES, IllegalMove, Phase, SweepState, UnitKind, UnitState
from service.store.endings import end_sweep
from service.store.tables import ArtifactRow
from service.store.units import Lease, lock_sweep
from tests.workers.installation import Installation, wait_for, waiting_for_the_lock
from workers.reconciler import reconcile
from workers.sweep.runner import PHASES

KINDS = list(PHASES)
ids = [str(each) for each in KINDS]


def test_the_phases_follow_each_other(installation: Installation) -> None:
    sweep_id = installation.sweep()
    done = []
    while (lease := installation.claim()) is not None:
        if lease.sweep_id == sweep_id:
            assert installation.row(sweep_id).phase == lease.kind
            done.append((lease.kind, lease.round, lease.ordinal))
        installation.run(lease)
    table = [(UnitKind.MEASURE, 0, ordinal) for ordinal in range(3)]
    verified = [(UnitKind.VERIFY, 1, ordinal) for ordinal in range(3)]
    assert done == [
        (UnitKind.PREPARE, 0, 0),
        (UnitKind.CALIBRATE, 0, 0),
        *table,
        (UnitKind.SELECT, 0, 0),
        *verified,
        (UnitKind.SELECT, 1, 0),
        (UnitKind.REPORT, 0, 0),
    ]
    assert installation.state(sweep_id) is SweepState.SUCCEEDED


def test_only_the_last_shard_queues_what_follows_whatever_their_order(installation: Installation) -> None:
    sweep_id = installation.sweep()
    shards = [installation.run_until(UnitKind.MEASURE) for _ in range(3)]
    for lease in reversed(shards[1:]):
        assert lease is not None
        installation.run(lease)
        assert installation.row(sweep_id).phase == Phase.MEASURE
        assert "select" not in installation.unit_states(sweep_id)
    assert shards[0] is not None
    installation.run(shards[0])
    assert installation.unit_states(sweep_id)["select"] == {UnitState.QUEUED}


@pytest.mark.parametrize("kind", KINDS, ids=ids)
@pytest.mark.parametrize("end", [SweepState.FAILED, SweepState.CANCELLED])
def test_nothing_changes_a_sweep_that_has_ended(installation: Installation, end: SweepState, kind: UnitKind) -> None:
    """Not the worker that was still at it, not the reconciler, not a cancel."""
    sweep_id, held = held_at(installation, kind)
    with installation.context.database.write() as session:
        sweep = lock_sweep(session, sweep_id)
        assert sweep is not None
        end_sweep(session, sweep, end)
    before = installation.everything()
    installation.run(held)
    reconcile(installation.context)
    installation.cancel(sweep_id)
    assert installation.everything() == before


def test_nothing_changes_a_sweep_that_succeeded(installation: Installation) -> None:
    sweep_id = installation.sweep()
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED
    before = installation.everything()
    reconcile(installation.context)
    installation.cancel(sweep_id)
    for end in TERMINAL_SWEEP_STATES:
        with pytest.raises(IllegalMove), installation.context.database.write() as session:
            end_sweep(session, lock_sweep(session, sweep_id), end)
    assert installation.everything() == before


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_a_cancel_is_seen_by_the_worker_that_begins_a_unit(installation: Installation, kind: UnitKind) -> None:
    sweep_id, held = held_at(installation, kind)
    installation.cancel(sweep_id)
    assert installation.state(sweep_id) in (SweepState.QUEUED, SweepState.RUNNING), "a worker holds it"
    installation.run(held)
    assert_cancelled(installation, sweep_id, kind)


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_a_cancel_during_the_work_counts_even_if_the_work_comes_to_its_end(
    installation: Installation, kind: UnitKind
) -> None:
    """What was answered to the caller holds: a cancelled sweep does not succeed by the way."""
    sweep_id, held = held_at(installation, kind)
    meanwhile(installation, lambda: installation.run(held), cancel_of(sweep_id))
    assert_cancelled(installation, sweep_id, kind)


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_a_cancel_while_no_worker_is_at_it_is_carried_out_at_once(installation: Installation, kind: UnitKind) -> None:
    sweep_id, held = held_at(installation, kind)
    installation.let_expire(held)
    reconcile(installation.context)
    installation.cancel(sweep_id)
    assert_cancelled(installation, sweep_id, kind)


def assert_cancelled(installation: Installation, sweep_id: str, kind: UnitKind) -> None:
    row = installation.row(sweep_id)
    assert (row.state, row.problem) == (SweepState.CANCELLED, None)
    assert row.finished_at is not None
    states = installation.unit_states(sweep_id)
    assert UnitState.CANCELLED in states.pop(kind)
    assert set().union(*states.values()) <= {UnitState.DONE}, "what was done before stays"
    assert installation.claim() is None
    with installation.context.database.read() as session:
        assert session.query(ArtifactRow).count() == 0


def held_at(installation: Installation, kind: UnitKind) -> tuple[str, Lease]:
    """A sweep that has come to its first unit of this kind, which a worker holds."""
    sweep_id = installation.sweep_with(kind)
    held = installation.run_until(kind)
    assert held is not None
    return sweep_id, held


def cancel_of(sweep_id: str) -> Callable[[object], None]:
    def cancel(session: object) -> None:
        sweep = lock_sweep(session, sweep_id)
        assert sweep is not None
        sweep.cancel_requested = True

    return cancel


def meanwhile(installation: Installation, work: Callable[[], None], change: Callable[[object], None]) -> None:
    """The change is committed after the work read its rows and before it commits: it waits for our write lock."""
    other = installation.again()
    waiting = waiting_for_the_lock(installation.context.database)
    thread = threading.Thread(target=work)
    with other.context.database.write() as session:
        session.connection()  # takes the lock
        thread.start()
        wait_for(lambda: thread.ident in waiting)
        change(session)
    thread.join()
    other.context.database.close()
