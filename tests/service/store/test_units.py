import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.domain.errors import LeaseLost
from service.domain.states import UnitKind, UnitState
from service.settings import LONGEST_LEASE_SECONDS
from service.store import lost_units, units
from service.store.database import Database
from service.store.tables import UnitRow
from service.store.units import Lease, NewUnit

LONG, GONE = 60.0, -1.0


def add(database: Database, count: int = 1, **fields) -> list[str]:
    new = [NewUnit(UnitKind.CHECK_DATASET, f"dat_{number}", "data", **fields) for number in range(count)]
    with database.write() as session:
        return units.add_units(session, new)


def claim(database: Database, lease_seconds: float = LONG, queue: str = "data") -> Lease | None:
    with database.write() as session:
        return units.claim(session, queue, owner="w", lease_seconds=lease_seconds)


def state(database: Database, unit_id: str) -> UnitRow:
    with database.read() as session:
        return session.get_one(UnitRow, unit_id)


def test_a_unit_is_claimed_once(database):
    (unit_id,) = add(database)
    lease = claim(database)
    assert lease is not None
    assert lease.unit_id == unit_id
    assert claim(database) is None


def test_a_waiting_unit_and_one_of_another_queue_are_not_claimed(database):
    add(database, waiting=True)
    with database.write() as session:
        units.add_units(session, [NewUnit(UnitKind.CHECK_MODEL, "mdl_1", "torch")])
    assert claim(database) is None


def test_workers_that_claim_at_the_same_time_share_no_unit(database):
    ids = add(database, 20)

    def work(_: int) -> list[str]:
        mine = []
        while (lease := claim(database)) is not None:
            mine.append(lease.unit_id)
        return mine

    with ThreadPoolExecutor(4) as pool:
        claimed = [unit_id for mine in pool.map(work, range(4)) for unit_id in mine]
    assert len(claimed) == len(set(claimed))
    left = []
    while (lease := claim(database)) is not None:  # a claim that lost its race may have said that there is none
        left.append(lease.unit_id)
    assert sorted(claimed + left) == sorted(ids)


def test_a_taken_over_worker_can_write_nothing(database):
    (unit_id,) = add(database)
    old = claim(database, GONE)
    with database.write() as session:
        assert [each.unit_id for each in lost_units.expired(session)] == [unit_id]
        assert lost_units.take_back(session, unit_id, max_attempts=3) is UnitState.QUEUED
    for write in (
        lambda session: units.finish(session, old, result={"by": "old"}),
        lambda session: units.heartbeat(session, old, lease_seconds=LONG, progress=0.5),
        lambda session: units.fail(session, old, error="x"),
        lambda session: units.give_back(session, old, error=None, count_attempt=True),
    ):
        with pytest.raises(LeaseLost), database.write() as session:
            write(session)

    new = claim(database)
    assert new.token > old.token
    with pytest.raises(LeaseLost), database.write() as session:
        units.finish(session, old, result={"by": "old"})
    with database.write() as session:
        units.finish(session, new, result={"by": "new"})
    assert state(database, unit_id).result == {"by": "new"}


def test_what_a_transaction_wrote_with_a_lost_lease_is_rolled_back(database):
    add(database)
    lease = claim(database, GONE)
    with database.write() as session:
        lost_units.take_back(session, lease.unit_id, max_attempts=3)

    def write_late() -> None:
        with database.write() as session:
            units.add_units(session, [NewUnit(UnitKind.CHECK_MODEL, "mdl_2", "torch")])
            units.finish(session, lease, result={})

    with pytest.raises(LeaseLost):
        write_late()
    assert claim(database, queue="torch") is None


def test_a_heartbeat_keeps_a_lease_alive(database):
    add(database)
    lease = claim(database, 0.2)
    with database.write() as session:
        units.heartbeat(session, lease, lease_seconds=LONG, progress=0.25)
    time.sleep(0.3)
    with database.write() as session:
        assert lost_units.expired(session) == []
        assert lost_units.take_back(session, lease.unit_id, max_attempts=3) is None
    assert state(database, lease.unit_id).progress == 0.25


def test_a_lease_from_before_the_clock_was_set_back_is_taken_back(database):
    (unit_id,) = add(database)
    claim(database)
    with database.write() as session:
        session.get_one(UnitRow, unit_id).lease_expires_at += 2 * LONGEST_LEASE_SECONDS
    with database.write() as session:
        assert [each.unit_id for each in lost_units.expired(session)] == [unit_id]
        assert lost_units.take_back(session, unit_id, max_attempts=3) is UnitState.QUEUED


def test_a_worker_that_lives_keeps_its_lease_where_the_clock_was_set_back(database):
    (unit_id,) = add(database)
    lease = claim(database)
    with database.write() as session:
        session.get_one(UnitRow, unit_id).lease_expires_at += 2 * LONGEST_LEASE_SECONDS
    with database.write() as session:
        units.heartbeat(session, lease, lease_seconds=LONG, progress=0.5)
        assert lost_units.expired(session) == []


def test_a_hint_from_before_the_clock_was_set_back_counts_as_lost(database):
    (unit_id,) = add(database)
    with database.write() as session:
        session.get_one(UnitRow, unit_id).published_at += 2 * LONGEST_LEASE_SECONDS
    with database.write() as session:
        assert lost_units.stale_hints(session, older_than=10.0) == [(unit_id, "data")]
        assert lost_units.stale_hints(session, older_than=10.0) == []


def test_the_last_attempt_ends_the_unit(database):
    (unit_id,) = add(database)
    for attempt in (1, 2):
        claim(database, GONE)
        with database.write() as session:
            after = lost_units.take_back(session, unit_id, max_attempts=2)
        assert after is (UnitState.QUEUED if attempt == 1 else UnitState.FAILED)
    assert "lost 2 times" in state(database, unit_id).error


def test_giving_back_need_not_count(database):
    (unit_id,) = add(database)
    with database.write() as session:
        units.give_back(
            session, units.claim(session, "data", owner="w", lease_seconds=LONG), error=None, count_attempt=False
        )
    row = state(database, unit_id)
    assert (row.state, row.attempts) == (UnitState.QUEUED, 0)


def test_hints_are_due_once(database):
    (unit_id,) = add(database)
    with database.write() as session:
        assert lost_units.stale_hints(session, older_than=10) == []
        assert lost_units.stale_hints(session, older_than=-1) == [(unit_id, "data")]


def test_sweeps_share_the_workers(rows, database):
    first, second = rows.sweep(), rows.sweep()
    with database.write() as session:
        more = [NewUnit(UnitKind.MEASURE, first, "onnxruntime", sweep_id=first, ordinal=n) for n in range(3)]
        units.add_units(session, more)
    owners = [claim(database, queue="onnxruntime").sweep_id for _ in range(3)]
    assert set(owners[:2]) == {first, second}
    assert owners[2] == first


def test_the_next_unit_is_the_one_that_others_leave(rows, database):
    sweep, other = rows.sweep(), rows.sweep()
    new = [
        NewUnit(UnitKind.MEASURE, each, "gpu", sweep_id=each, ordinal=n, payload={"sweep": each, "n": n})
        for each in (sweep, other)
        for n in range(4)
    ]
    with database.write() as session:
        units.add_units(session, new)
        session.query(UnitRow).filter_by(sweep_id=other).update({"queue": "elsewhere"})

    def expected(lease: Lease) -> int | None:
        with database.read() as session:
            found = units.expected_next(session, lease)
        assert found is None or found["sweep"] == sweep
        return None if found is None else found["n"]

    first = claim(database, queue="gpu")
    assert expected(first) == 1
    # the first worker will be done before the second, and take 2
    second = claim(database, queue="gpu")
    assert (second.ordinal, expected(second)) == (1, 3)
    assert expected(claim(database, queue="gpu")) is None
