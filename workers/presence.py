"""A worker's heartbeat in the database: that it lives, and what it can run; and its farewell."""

import json
import logging
import os
import socket
import threading

from sqlalchemy.exc import SQLAlchemyError

from service import __version__
from service.store import installation, units, workers
from service.store.workers import Heartbeat
from workers.capabilities import published
from workers.context import WorkerContext

log = logging.getLogger(__name__)


class Presence(threading.Thread):
    """Writes the worker's row every few seconds until stopped."""

    def __init__(self, context: WorkerContext, queues: list[str]) -> None:
        super().__init__(name="presence", daemon=True)
        self._context = context
        self._heartbeat = _heartbeat(context.worker_id, queues)
        self._stopped = threading.Event()
        self._refused: str | None = None

    def run(self) -> None:
        """Beat until ``stop`` is called."""
        while not self._stopped.is_set():
            try:
                self._look_at_versions()
                with self._context.database.write() as session:
                    workers.beat(session, self._heartbeat)
            except SQLAlchemyError as error:
                log.warning("no presence written: %s", error)
            self._stopped.wait(self._context.settings.heartbeat_seconds)

    def _look_at_versions(self) -> None:
        refused = installation.refusal(self._context.database)
        if refused != self._refused:
            log.log(logging.ERROR if refused else logging.INFO, refused or "the versions fit together again")
        self._refused = refused

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopped.set()


def _heartbeat(worker_id: str, queues: list[str]) -> Heartbeat:
    capabilities = published()
    versions = {"quantsieve": __version__} | installation.code_speaks().versions()
    for capability in capabilities.values():
        versions.update(capability["versions"])
    if confined := os.environ.get("QUANTSIEVE_MEASURES"):
        capabilities["sandbox"] = json.loads(confined)
    return Heartbeat(worker_id, socket.gethostname(), os.getpid(), sorted(queues), capabilities, versions)


def leave(context: WorkerContext) -> None:
    """Give back at once what the worker holds, and remove its row; doing it again does no harm.

    A database that is away is logged: then the leases run out, and the row is soon too old to count.
    """
    try:
        with context.database.write() as session:
            queues = units.give_back_all(session, context.worker_id)
            workers.leave(session, context.worker_id)
    except SQLAlchemyError as error:
        log.warning("leaving without giving back: %s", error)
        return
    for queue in queues:
        log.info("gave back a unit of queue %s", queue)
        context.hints.publish(queue)
