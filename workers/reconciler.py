"""Puts right what was lost: expired leases, hints that no worker heard, cancels that no worker saw.

Any number may run at once; each step is a conditional change of a row.
"""

import logging
import threading
from collections import Counter

from sqlalchemy import ColumnElement, Select, select

from service.domain.states import SelectionState, SweepState, UnitKind, UnitState
from service.store import installation, leftovers, lost_units, retention
from service.store.blobs import StorageUnavailable
from service.store.lost_units import LostUnit
from service.store.subjects import lock_open_subject
from service.store.tables import SelectionRow, SweepRow, UnitRow
from workers.context import WorkerContext
from workers.verdicts import give_up

log = logging.getLogger(__name__)

HINT_AGE_SECONDS = 10.0


def reconcile(context: WorkerContext) -> None:
    """One look over the database; publishes the hints that are due."""
    with context.database.read() as session:
        lost = lost_units.expired(session)
    for each in lost:
        _take_back(context, each)
    with context.database.read() as session:
        cancelled = [(sweep_id, sweep_id) for sweep_id in session.scalars(_cancelled_sweeps())]
        cancelled += [(row.sweep_id, row.id) for row in session.execute(_cancelled_selections())]
    for sweep_id, subject_id in cancelled:
        _cancel(context, sweep_id, subject_id)
    with context.database.write() as session:
        stale = lost_units.stale_hints(session, older_than=HINT_AGE_SECONDS)
    for queue, units in Counter(queue for _, queue in stale).items():
        # units that only wait for their turn have hints that nobody took yet: more would fill the broker
        context.hints.publish(queue, max(0, units - context.hints.waiting(queue)))


def collect(context: WorkerContext) -> None:
    """Where it is this worker's turn: delete sweeps that are kept no longer, and files that nothing names."""
    settings = context.settings
    with context.database.write() as session:
        if not installation.take_collection(session, every=settings.collect_seconds):
            return
    removed = []
    if settings.retention_days is not None:
        removed = retention.remove_outlived(context.database, settings.retention_days)
    try:
        files = leftovers.remove_leftovers(context.database, context.blobs)
    except StorageUnavailable as error:
        log.warning("leftovers stay for now: %s", error)
        return
    if removed or files:
        log.info("deleted %d sweeps that are kept no longer, and %d files that nothing names", len(removed), files)


def _take_back(context: WorkerContext, lost: LostUnit) -> None:
    with context.database.write() as session:
        subject = lock_open_subject(session, lost.sweep_id, lost.subject_id)
        state = lost_units.take_back(session, lost.unit_id, max_attempts=context.settings.max_attempts)
        if state is not None:
            log.warning("lease on %s ran out; it is now %s", lost.unit_id, state)
        if state is not UnitState.FAILED:
            return
        unit = session.get_one(UnitRow, lost.unit_id)
        reason = (
            f"the work ({unit.kind}) lost its worker {unit.attempts} times; the model may exhaust the worker's memory"
        )
        if subject is not None:
            subject.fail(session, code="worker-lost", problem=reason)
        elif lost.sweep_id is None:
            give_up(session, UnitKind(unit.kind), unit.subject_id, reason)


def _cancelled_sweeps() -> Select[str]:
    """Those that no worker will see the cancel of."""
    running = SweepRow.state.in_((SweepState.QUEUED, SweepState.RUNNING))
    return select(SweepRow.id).where(SweepRow.cancel_requested, running, ~_held(SweepRow))


def _cancelled_selections() -> Select[str, str]:
    """The same: (sweep id, selection id)."""
    running = SelectionRow.state.in_((SelectionState.QUEUED, SelectionState.RUNNING))
    found = select(SelectionRow.sweep_id, SelectionRow.id)
    return found.where(SelectionRow.cancel_requested, running, ~_held(SelectionRow))


def _held(table: type[SweepRow | SelectionRow]) -> ColumnElement[bool]:
    return select(UnitRow.id).where(UnitRow.subject_id == table.id, UnitRow.state == UnitState.LEASED).exists()


def _cancel(context: WorkerContext, sweep_id: str, subject_id: str) -> None:
    with context.database.write() as session:
        subject = lock_open_subject(session, sweep_id, subject_id)
        if subject is not None:
            subject.cancel(session)


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
                if installation.refusal(self._context.database) is None:  # else the thread that beats says so
                    reconcile(self._context)
                    collect(self._context)
            except Exception:  # nobody else would notice that this thread is gone
                log.exception("reconciling failed, will try again")

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopped.set()
