"""Holding a lease while working: heartbeats from a thread, and a checkpoint that says when to stop."""

import logging
import threading
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.domain.errors import LeaseLost, SweepCancelled
from service.store import units
from service.store.tables import SelectionRow, SweepRow
from service.store.units import Lease
from workers.context import WorkerContext

log = logging.getLogger(__name__)


class HeldLease:
    """Keeps a lease alive for the length of a ``with`` block.

    The work calls ``checkpoint`` wherever it can stop: between shards, variants and batches.
    """

    def __init__(self, context: WorkerContext, lease: Lease) -> None:
        self._context = context
        self.lease = lease
        self._progress = 0.0
        self._stop = threading.Event()
        self._ended: LeaseLost | SweepCancelled | None = None
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {lease.unit_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def checkpoint(self, progress: float | None = None) -> None:
        """Note the progress (0 to 1); raises LeaseLost or SweepCancelled where the work should stop."""
        if progress is not None:
            self._progress = progress
        if self._ended is not None:
            raise self._ended

    def _beat(self) -> None:
        while not self._stop.wait(self._context.settings.heartbeat_seconds):
            try:
                with self._context.database.write() as session:
                    units.heartbeat(
                        session,
                        self.lease,
                        lease_seconds=self._context.settings.lease_seconds,
                        progress=min(self._progress, 0.999),
                    )
                    if self._cancel_requested(session):
                        self._ended = SweepCancelled("it was cancelled")
                        return
            except LeaseLost as error:
                self._ended = error
                return
            except SQLAlchemyError as error:
                # the lease outlives a few missed beats; the next one may get through
                log.warning("no heartbeat for %s: %s", self.lease.unit_id, error)

    def _cancel_requested(self, session: Session) -> bool:
        if self.lease.sweep_id is None:
            return False
        subject: SweepRow | SelectionRow | None
        if self.lease.selection_id is None:
            subject = session.get(SweepRow, self.lease.sweep_id)
        else:
            subject = session.get(SelectionRow, self.lease.selection_id)
        return subject is not None and subject.cancel_requested

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
