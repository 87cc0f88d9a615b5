"""A worker's heartbeat in the database: that it lives, and what it can run."""

import json
import logging
import os
import socket
import threading
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from service import __version__
from service.store.clock import now
from service.store.tables import WorkerRow
from workers.context import WorkerContext

log = logging.getLogger(__name__)


class Presence(threading.Thread):
    """Writes the worker's row every few seconds until stopped."""

    def __init__(self, context: WorkerContext, queues: list[str]) -> None:
        super().__init__(name="presence", daemon=True)
        self._context = context
        self._queues = sorted(queues)
        self._capabilities = {
            each["backend"]: each for each in json.loads(os.environ.get("QUANTSIEVE_CAPABILITIES", "[]"))
        }
        self._stopped = threading.Event()

    def run(self) -> None:
        """Beat until ``stop`` is called."""
        while True:
            try:
                self._beat()
            except SQLAlchemyError as error:
                log.warning("no presence written: %s", error)
            if self._stopped.wait(self._context.settings.heartbeat_seconds):
                return

    def _beat(self) -> None:
        with self._context.database.write() as session:
            row = session.get(WorkerRow, self._context.worker_id)
            if row is None:
                row = WorkerRow(
                    id=self._context.worker_id, host=socket.gethostname(), pid=os.getpid(), started_at=now()
                )
                row.queues, row.capabilities, row.versions = list(self._queues), self._capabilities, self._versions()
                session.add(row)
            row.seen_at = now()

    def _versions(self) -> dict[str, Any]:
        versions = {"quantsieve": __version__}
        for capability in self._capabilities.values():
            versions.update(capability["versions"])
        return versions

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopped.set()
