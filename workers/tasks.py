"""The one task: a hint that a queue has work. It claims one unit and does it."""

import logging

from service.store import units
from workers.context import WorkerContext
from workers.sweep.runner import run_unit

log = logging.getLogger(__name__)


def work(context: WorkerContext, queue: str) -> int:
    """Do one unit of a queue; how many were done (0: the hint was stale, another worker has the unit)."""
    with context.database.write() as session:
        lease = units.claim(session, queue, owner=context.worker_id, lease_seconds=context.settings.lease_seconds)
    if lease is None:
        return 0
    run_unit(context, lease)
    return 1
