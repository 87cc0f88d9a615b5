"""Several workers at the unit queue, in any order that Hypothesis thinks of, beside a model of a few lines."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule, run_state_machine_as_test
from sqlalchemy import delete, select, update

from service.domain.errors import LeaseLost
from service.domain.states import UnitKind, UnitState
from service.store import units
from service.store.clock import now
from service.store.database import Database
from service.store.tables import UnitRow
from service.store.units import Lease, NewUnit
from tests.service.store.conftest import Rows

WORKERS = ("ada", "bob", "cyd")
MAX_ATTEMPTS = 2
LONG = 600.0
TERMINAL = (UnitState.DONE, UnitState.FAILED, UnitState.CANCELLED)


@dataclass(frozen=True)
class Unit:
    """What the model knows of a unit. ``result``: the token of the lease that finished it."""

    state: UnitState = UnitState.QUEUED
    attempts: int = 0
    token: int = 0
    owner: str | None = None
    expired: bool = False
    result: int | None = None


class Queue(RuleBasedStateMachine):
    """``leases`` are all that were ever given, dead ones included: a worker may wake up at any time."""

    database: ClassVar[Database]
    sweep_id: ClassVar[str]
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Unit] = {}
        self.ended: dict[str, Unit] = {}
        with self.database.write() as session:
            session.execute(delete(UnitRow))

    @initialize(count=st.integers(2, 3))
    def begin(self, count: int) -> None:
        self.add(count)

    @rule(count=st.integers(1, 2))
    def add(self, count: int) -> None:
        start = len(self.model)
        new = [
            NewUnit(UnitKind.MEASURE, self.sweep_id, "q", sweep_id=self.sweep_id, ordinal=start + number)
            for number in range(count)
        ]
        with self.database.write() as session:
            self.model |= dict.fromkeys(units.add_units(session, new), Unit())

    @rule(target=leases, worker=st.sampled_from(WORKERS))
    def claim(self, worker: str) -> Any:
        with self.database.write() as session:
            lease = units.claim(session, "q", owner=worker, lease_seconds=LONG)
        queued = [each for each, unit in self.model.items() if unit.state is UnitState.QUEUED]
        if lease is None:
            assert queued == []
            return multiple()
        assert lease.unit_id in queued, "a unit that somebody holds, or that has ended, was given away"
        unit = self.model[lease.unit_id]
        assert lease.token > unit.token
        self.model[lease.unit_id] = replace(
            unit, state=UnitState.LEASED, attempts=unit.attempts + 1, token=lease.token, owner=worker, expired=False
        )
        return lease

    @rule(lease=leases)
    def heartbeat(self, lease: Lease) -> None:
        if self._write(lease, lambda session: units.heartbeat(session, lease, lease_seconds=LONG, progress=0.5)):
            self._becomes(lease, expired=False)

    @rule(lease=leases)
    def finish(self, lease: Lease) -> None:
        if self._write(lease, lambda session: units.finish(session, lease, result={"token": lease.token})):
            self._becomes(lease, state=UnitState.DONE, result=lease.token)

    @rule(lease=leases)
    def fail(self, lease: Lease) -> None:
        if self._write(lease, lambda session: units.fail(session, lease, error="it broke")):
            self._becomes(lease, state=UnitState.FAILED)

    @rule(lease=leases)
    def cancel(self, lease: Lease) -> None:
        if self._write(lease, lambda session: units.cancel(session, lease)):
            self._becomes(lease, state=UnitState.CANCELLED)

    @rule(lease=leases, count_attempt=st.booleans())
    def give_back(self, lease: Lease, count_attempt: bool) -> None:
        if self.model[lease.unit_id].attempts >= MAX_ATTEMPTS:
            count_attempt = False  # a worker ends the unit where the last attempt counts
        if self._write(lease, lambda session: units.give_back(session, lease, error=None, count_attempt=count_attempt)):
            attempts = self.model[lease.unit_id].attempts - (not count_attempt)
            self._becomes(lease, state=UnitState.QUEUED, owner=None, attempts=attempts)

    @rule(worker=st.sampled_from(WORKERS))
    def leave(self, worker: str) -> None:
        with self.database.write() as session:
            units.give_back_all(session, worker)
        for each, unit in self.model.items():
            if unit.state is UnitState.LEASED and unit.owner == worker:
                given = replace(unit, state=UnitState.QUEUED, owner=None, attempts=unit.attempts - 1)
                self.model[each] = replace(given, token=unit.token + 1)

    @rule(worker=st.sampled_from(WORKERS))
    def die(self, worker: str) -> None:
        """The leases of a worker run out."""
        held = (UnitRow.owner == worker, UnitRow.state == UnitState.LEASED)
        with self.database.write() as session:
            session.execute(update(UnitRow).where(*held).values(lease_expires_at=now() - 1.0))
        for each, unit in self.model.items():
            if unit.state is UnitState.LEASED and unit.owner == worker:
                self.model[each] = replace(unit, expired=True)

    @rule(worker=st.sampled_from(WORKERS))
    def die_and_reconcile(self, worker: str) -> None:
        self.die(worker)
        self.reconcile()

    @rule()
    def reconcile(self) -> None:
        with self.database.write() as session:
            lost = [unit_id for unit_id, _ in units.expired(session)]
        assert sorted(lost) == sorted(each for each, unit in self.model.items() if unit.expired)
        for each in lost:
            with self.database.write() as session:
                state = units.take_back(session, each, max_attempts=MAX_ATTEMPTS)
            unit = self.model[each]
            expected = UnitState.FAILED if unit.attempts >= MAX_ATTEMPTS else UnitState.QUEUED
            assert state is expected
            owner = unit.owner if state is UnitState.FAILED else None
            self.model[each] = replace(unit, state=state, token=unit.token + 1, owner=owner, expired=False)

    @rule(state=st.sampled_from([UnitState.FAILED, UnitState.CANCELLED]))
    def end_sweep(self, state: UnitState) -> None:
        with self.database.write() as session:
            units.end_units(session, self.sweep_id, state)
        for each, unit in self.model.items():
            if unit.state not in TERMINAL:
                self.model[each] = replace(unit, state=state, token=unit.token + 1, expired=False)

    @invariant()
    def the_rows_are_as_the_model(self) -> None:
        with self.database.read() as session:
            rows = session.scalars(select(UnitRow)).all()
        found = {row.id: row for row in rows}
        assert found.keys() == self.model.keys()
        for each, unit in self.model.items():
            row = found[each]
            assert (row.state, row.attempts, row.token, row.result.get("token")) == (
                unit.state,
                unit.attempts,
                unit.token,
                unit.result,
            )
            assert row.owner == unit.owner
            assert row.attempts <= MAX_ATTEMPTS
            assert (row.lease_expires_at is not None) == (unit.state is UnitState.LEASED)

    @invariant()
    def an_end_is_for_good(self) -> None:
        for each, unit in self.model.items():
            if unit.state in TERMINAL:
                assert self.ended.setdefault(each, unit) == unit

    def _write(self, lease: Lease, write: Any) -> bool:
        """Whether the write was taken: that of a lease that is outdated must be refused, and that alone."""
        unit = self.model[lease.unit_id]
        valid = unit.state is UnitState.LEASED and unit.token == lease.token
        if valid:
            with self.database.write() as session:
                write(session)
            return True
        with pytest.raises(LeaseLost), self.database.write() as session:
            write(session)
        return False

    def _becomes(self, lease: Lease, **changes: Any) -> None:
        gone = {"expired": False} if "state" in changes else {}
        self.model[lease.unit_id] = replace(self.model[lease.unit_id], **gone, **changes)


def test_no_order_of_events_breaks_a_promise_of_the_queue(database: Database, rows: Rows) -> None:
    made = {"database": database, "sweep_id": rows.sweep()}
    few = settings(
        max_examples=60,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(type("QueueOf", (Queue,), made), settings=few)
