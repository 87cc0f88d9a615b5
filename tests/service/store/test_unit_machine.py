"""Several workers at the unit queue, in any order that Hypothesis thinks of, beside a model of a few lines."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.domain.errors import LeaseLost
from service.domain.states import UnitKind, UnitState
from service.store import lost_units, units
from service.store.clock import now
from service.store.database import Database
from service.store.tables import UnitRow
from service.store.units import Lease, NewUnit
from tests.service.store.conftest import Rows

WORKERS = ("ada", "bob", "cyd")
MAX_ATTEMPTS = 2
LONG = 600.0
TERMINAL = (UnitState.DONE, UnitState.FAILED, UnitState.CANCELLED)
HEARTBEATS = (UnitState.LEASED, UnitState.WAITING)
WRITES: dict[UnitState, Callable[[Session, Lease], None]] = {
    UnitState.DONE: lambda session, lease: units.finish(session, lease, result={"token": lease.token}),
    UnitState.FAILED: lambda session, lease: units.fail(session, lease, error="it broke"),
    UnitState.CANCELLED: units.cancel,
    UnitState.QUEUED: lambda session, lease: units.give_back(session, lease, error=None, count_attempt=False),
    **dict.fromkeys(
        HEARTBEATS, lambda session, lease: units.heartbeat(session, lease, lease_seconds=LONG, progress=0.5)
    ),
}


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

    @rule(lease=leases, end=st.sampled_from(UnitState))
    def write(self, lease: Lease, end: UnitState) -> None:
        """A heartbeat, or the end that this worker gives its unit; refused where its lease is gone, and only there."""
        unit = self.model[lease.unit_id]
        if unit.state is not UnitState.LEASED or unit.token != lease.token:
            with pytest.raises(LeaseLost), self.database.write() as session:
                WRITES[end](session, lease)
            return
        with self.database.write() as session:
            WRITES[end](session, lease)
        changes: dict[str, Any] = {"state": end, "expired": False}
        if end is UnitState.DONE:
            changes["result"] = lease.token
        if end is UnitState.QUEUED:
            changes |= {"owner": None, "attempts": unit.attempts - 1}
        if end in HEARTBEATS:
            changes["state"] = UnitState.LEASED
        self.model[lease.unit_id] = replace(unit, **changes)

    @rule(worker=st.sampled_from(WORKERS))
    def leave(self, worker: str) -> None:
        with self.database.write() as session:
            units.give_back_all(session, worker)
        for each, unit in self.model.items():
            if unit.state is UnitState.LEASED and unit.owner == worker:
                given = replace(unit, state=UnitState.QUEUED, owner=None, attempts=unit.attempts - 1, expired=False)
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
    def claim_and_be_lost(self, worker: str) -> None:
        self.claim(worker)
        self.die(worker)
        self.reconcile()

    @rule()
    def reconcile(self) -> None:
        with self.database.write() as session:
            lost = [each.unit_id for each in lost_units.expired(session)]
        assert sorted(lost) == sorted(each for each, unit in self.model.items() if unit.expired)
        for each in lost:
            with self.database.write() as session:
                state = lost_units.take_back(session, each, max_attempts=MAX_ATTEMPTS)
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
        columns = (UnitRow.id, UnitRow.state, UnitRow.attempts, UnitRow.token, UnitRow.owner)
        with self.database.read() as session:
            rows = session.execute(select(*columns, UnitRow.result, UnitRow.lease_expires_at)).all()
        found = {row.id: (row.state, row.attempts, row.token, row.owner, row.result.get("token")) for row in rows}
        known = self.model.items()
        assert found == {each: (unit.state, unit.attempts, unit.token, unit.owner, unit.result) for each, unit in known}
        assert all(row.attempts <= MAX_ATTEMPTS for row in rows)
        assert all((row.lease_expires_at is not None) == (row.state == UnitState.LEASED) for row in rows)

    @invariant()
    def an_end_is_for_good(self) -> None:
        for each, unit in self.model.items():
            if unit.state in TERMINAL:
                assert self.ended.setdefault(each, unit) == unit


def test_no_order_of_events_breaks_a_promise_of_the_queue(database: Database, rows: Rows) -> None:
    made = {"database": database, "sweep_id": rows.sweep()}
    few = settings(
        max_examples=20,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(type("QueueOf", (Queue,), made), settings=few)
