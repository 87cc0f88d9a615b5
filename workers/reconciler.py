"""Puts right what was lost: expired leases, hints that no worker heard, sweeps whose cancel no worker saw.

Any number may run at once; each step is a conditional change of a row.
"""

import logging
import threading

from sqlalchemy import ColumnElement, select

from service.domain.states import SweepState, UnitKind, UnitState
from service.store import units
from service.store.endings import end_sweep
from service.store.tables import SweepRow, UnitRow
from workers.context import WorkerContext
from workers.verdicts import give_up

log = logging.getLogger(__name__)

HINT_AGE_SECONDS = 10.0


def reconcile(context: WorkerContext) -> None:
    """One look over the database; publishes the hints that are due."""
    with context.database.read() as session:
        lost = units.expired(session)
    for unit_id, sweep_id in lost:
        _take_back(context, unit_id, sweep_id)
    with context.database.read() as session:
        cancelled = list(session.scalars(select(SweepRow.id).where(_cancel_is_due())))
    for sweep_id in cancelled:
        _cancel(context, sweep_id)
    with context.database.write() as session:
        stale = units.stale_hints(session, older_than=HINT_AGE_SECONDS)
    for _, queue in stale:
        context.hints.publish(queue)


def _take_back(context: WorkerContext, unit_id: str, sweep_id: str | None) -> None:
    with context.database.write() as session:
        sweep = units.lock_sweep(session, sweep_id) if sweep_id else None
        state = units.take_back(session, unit_id, max_attempts=context.settings.max_attempts)
        if state is not None:
            log.warning("lease on %s ran out; it is now %s", unit_id, state)
        if state is not UnitState.FAILED:
            return
        unit = session.get_one(UnitRow, unit_id)
        reason = (
            f"the work ({unit.kind}) lost its worker {unit.attempts} times; the model may exhaust the worker's memory"
        )
        if sweep is not None and not SweepState(sweep.state).terminal:
            end_sweep(session, sweep, SweepState.FAILED, code="worker-lost", problem=reason)
        elif sweep is None:
            give_up(session, UnitKind(unit.kind), unit.subject_id, reason)


def _cancel_is_due() -> ColumnElement[bool]:
    live = (UnitState.LEASED,)
    held = select(UnitRow.id).where(UnitRow.sweep_id == SweepRow.id, UnitRow.state.in_(live)).exists()
    running = SweepRow.state.in_((SweepState.QUEUED, SweepState.RUNNING))
    return SweepRow.cancel_requested & running & ~held


def _cancel(context: WorkerContext, sweep_id: str) -> None:
    with context.database.write() as session:
        sweep = units.lock_sweep(session, sweep_id)
        if sweep is not None and not SweepState(sweep.state).terminal:
            end_sweep(session, sweep, SweepState.CANCELLED)


class Reconciler(threading.Thread):
    """Looks again every few seconds until stopped."""

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(name="reconciler", daemon=True)
        self._context = context
        self._stopped = threading.Event()

    def run(self) -> None:
        """Reconcile until ``stop`` is called; a database that is away is tried again."""
        while not self._stopped.wait(self._context.settings.reconcile_seconds):
            try:
                reconcile(self._context)
            except Exception:  # nobody else would notice that this thread is gone
                log.exception("reconciling failed, will try again")

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopped.set()
