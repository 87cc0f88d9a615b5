"""Whose turn it is, over any mixture of projects, sweeps, priorities and workers."""

from collections import Counter
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text, update

from service.domain.scheduling import Priority
from service.domain.states import UnitKind, UnitState
from service.store import projects, turns, units
from service.store.clock import now
from service.store.database import Database
from service.store.tables import ProjectRow, SweepRow, UnitRow
from service.store.units import Lease, NewUnit


@dataclass
class Queue:
    """A queue of its own, with the sweeps whose units wait in it. ``held``: the leases that are out."""

    database: Database
    name: str = field(default_factory=lambda: uuid4().hex)
    held: list[Lease] = field(default_factory=list)
    project_of: dict[str, str] = field(default_factory=dict)

    def add(self, sweep_id: str, project: str, *, count: int, priority: Priority = Priority.NORMAL) -> str:
        with self.database.write() as session:
            if session.get(ProjectRow, project) is None:
                projects.create(session, ProjectRow(id=project))
            sweep = session.get_one(SweepRow, sweep_id)
            sweep.project_id, sweep.settings = project, {**sweep.settings, "priority": priority}
            session.flush()
            new = [NewUnit(UnitKind.MEASURE, sweep_id, self.name, sweep_id=sweep_id, ordinal=n) for n in range(count)]
            units.add_units(session, new)
        self.project_of[sweep_id] = project
        return sweep_id

    def claim(self) -> str:
        """The sweep whose unit goes out."""
        with self.database.write() as session:
            lease = units.claim(session, self.name, owner="w", lease_seconds=60)
        assert lease is not None
        assert lease.sweep_id is not None
        self.held.append(lease)
        return lease.sweep_id

    def finish(self, position: int = 0) -> None:
        lease = self.held.pop(position)
        with self.database.write() as session:
            units.finish(session, lease, result={})

    def claim_and_finish(self) -> str:
        sweep_id = self.claim()
        self.finish()
        return sweep_id

    def queued(self) -> Counter[str]:
        with self.database.read() as session:
            waits = select(UnitRow.subject_id).where(UnitRow.queue == self.name, UnitRow.state == UnitState.QUEUED)
            return Counter(session.scalars(waits))


@pytest.fixture
def queue(database: Database) -> Queue:
    return Queue(database)


def test_a_small_sweep_of_another_project_does_not_wait_for_a_large_one(queue, rows):
    large = queue.add(rows.sweep(), "one", count=300)
    assert [queue.claim_and_finish() for _ in range(3)] == [large] * 3
    small = queue.add(rows.sweep(), "two", count=3)
    served = [queue.claim_and_finish() for _ in range(6)]
    assert served.count(small) == 3


def test_a_small_sweep_of_the_same_project_does_not_either(queue, rows):
    large = queue.add(rows.sweep(), "one", count=300)
    queue.claim_and_finish()
    small = queue.add(rows.sweep(), "one", count=3)
    served = [queue.claim_and_finish() for _ in range(8)]
    assert served.count(small) == 3
    assert served.count(large) == 5


def test_projects_share_the_workers_however_many_sweeps_each_has(queue, rows):
    many = [queue.add(rows.sweep(), "many", count=4) for _ in range(5)]
    one = queue.add(rows.sweep(), "one", count=20)
    claimed = [queue.claim() for _ in range(8)]
    assert claimed.count(one) == 4
    assert sum(claimed.count(each) for each in many) == 4


def test_priorities_are_shares_of_the_project_and_of_no_other(queue, rows):
    sweeps = {each: queue.add(rows.sweep(), "one", count=60, priority=each) for each in Priority}
    other = queue.add(rows.sweep(), "two", count=60, priority=Priority.LOW)
    claimed = Counter(queue.claim() for _ in range(42))
    assert claimed[other] == 21
    low, normal, high = (claimed[sweeps[each]] for each in Priority)
    assert (low, normal, high) == (1, 4, 16)


def test_what_is_low_is_served_in_the_end_by_one_worker_too(queue, rows):
    high = queue.add(rows.sweep(), "one", count=100, priority=Priority.HIGH)
    low = queue.add(rows.sweep(), "one", count=10, priority=Priority.LOW)
    served = Counter(queue.claim_and_finish() for _ in range(60))
    assert served[low] >= 1
    assert served[high] > 4 * served[low]


def test_long_waiting_brings_the_turn(queue, rows, database):
    high = queue.add(rows.sweep(), "one", count=5, priority=Priority.HIGH)
    low = queue.add(rows.sweep(), "one", count=5, priority=Priority.LOW)
    assert queue.claim_and_finish() == high
    with database.write() as session:
        session.execute(update(UnitRow).where(UnitRow.subject_id == low).values(created_at=now() - 100))
        session.execute(
            update(UnitRow).where(UnitRow.subject_id == high, UnitRow.started_at.is_not(None)).values(started_at=now())
        )
    assert queue.claim_and_finish() == low


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.sampled_from(Priority)), max_size=6),
    workers=st.integers(1, 4),
    choices=st.randoms(use_true_random=False),
)
def test_whatever_there_is_is_shared(database, rows, sizes, workers, choices):
    """No unit is left while a worker is free, and no project gets more while another one that waits holds less."""
    queue = Queue(database)
    for project, count, priority in sizes:
        queue.add(rows.sweep(), project, count=count, priority=priority)
    while waiting := queue.queued():
        if len(queue.held) == workers:
            queue.finish(choices.randrange(workers))
        running = Counter(queue.project_of[str(each.sweep_id)] for each in queue.held)
        claimed = queue.project_of[queue.claim()]
        assert running[claimed] == min(running[queue.project_of[each]] for each in waiting)


def test_a_claim_reads_no_more_of_a_long_queue_than_of_a_short_one(queue, rows, database):
    queue.add(rows.sweep(), "one", count=3_000)
    queue.add(rows.sweep(), "two", count=2)
    query = turns.next_in_turn(queue.name).compile(database.engine, compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN (ANALYZE, FORMAT JSON)"
    with database.write() as session:
        if not database.is_sqlite:
            session.execute(text("ANALYZE work_units"))
        plan = session.execute(text(f"{explain} {query}")).all()
        held = session.scalar(select(func.count()).where(UnitRow.queue == queue.name))
    assert held == 3_002
    if database.is_sqlite:
        reads = [row.detail for row in plan if "work_units" in row.detail]
        assert reads
        assert all("USING" in each and "INDEX ix_work_units" in each for each in reads), reads
    else:
        assert max(rows_read(plan[0][0][0]["Plan"])) < 100


def rows_read(node: dict) -> list[float]:
    """The rows that each node of the plan gave, in all its loops."""
    below = [each for child in node.get("Plans", ()) for each in rows_read(child)]
    return [node["Actual Rows"] * node["Actual Loops"], *below]
