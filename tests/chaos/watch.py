"""Looks at the units of a sweep, a conversion or a selection, and can act on whoever holds one while it holds it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select

from service.domain.states import UnitState
from service.store.database import Database
from service.store.tables import ConversionRow, SelectionRow, SweepRow, UnitRow, WorkerRow

PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.0005


@dataclass
class Watch:
    """``seen``: the leases (unit, token) that were met; none is met twice."""

    database: Database
    subject_id: str
    seen: set[tuple[str, int]] = field(default_factory=set)

    def do_in(self, kind: str, action: Callable[[int], Any]) -> UnitRow:
        """Call ``action`` with the pid of the worker that holds a unit of this kind; the unit as it was then.

        Meanwhile the unit cannot be finished, since we hold its lock.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self._fresh(kind) is None:
                assert not self.ended(), f"it ended; nobody was met in {kind}"
                time.sleep(LOOK_SECONDS)
                continue
            with self.database.write() as session:
                query = self._leased(kind).with_for_update()
                unit = next((each for each in session.scalars(query) if (each.id, each.token) not in self.seen), None)
                worker = session.get(WorkerRow, unit.owner) if unit is not None else None
                if unit is None or worker is None:
                    continue
                action(worker.pid)
                self.seen.add((unit.id, unit.token))
                session.expunge(unit)
                return unit
        raise AssertionError(f"no unit of {kind} was leased within {PATIENCE_SECONDS} s")

    def unit(self, unit_id: str) -> UnitRow:
        """A unit as it is now."""
        with self.database.read() as session:
            return session.get_one(UnitRow, unit_id)

    def attempts_lost(self) -> dict[str, int]:
        """Kind → how many attempts at a unit of it led to nothing."""
        query = select(UnitRow.kind, func.sum(UnitRow.attempts - 1)).where(UnitRow.subject_id == self.subject_id)
        with self.database.read() as session:
            return {kind: int(lost) for kind, lost in session.execute(query.group_by(UnitRow.kind))}

    def held_by(self) -> dict[int, UnitRow]:
        """Worker's pid → the unit of ours that it holds."""
        query = select(WorkerRow.pid, UnitRow).join(UnitRow, UnitRow.owner == WorkerRow.id)
        held = query.where(UnitRow.subject_id == self.subject_id, UnitRow.state == UnitState.LEASED)
        with self.database.read() as session:
            return dict(session.execute(held).tuples().all())

    def ended(self) -> bool:
        """Whether it has ended."""
        with self.database.read() as session:
            rows = [session.get(table, self.subject_id) for table in (SweepRow, ConversionRow, SelectionRow)]
            (state,) = [each.state for each in rows if each is not None]
            return state in ("succeeded", "done", "failed", "cancelled")

    def _leased(self, kind: str) -> Any:
        mine = (UnitRow.subject_id == self.subject_id, UnitRow.kind == kind)
        return select(UnitRow).where(*mine, UnitRow.state == UnitState.LEASED)

    def _fresh(self, kind: str) -> UnitRow | None:
        with self.database.read() as session:
            leased = session.scalars(self._leased(kind))
            return next((each for each in leased if (each.id, each.token) not in self.seen), None)
