"""The one task: a hint that a queue has work. It claims one unit and does it."""

import logging
from typing import Any

from service import logs, tracing
from service.store import installation, units
from workers.context import WorkerContext
from workers.sweep.runner import run_unit

log = logging.getLogger(__name__)


def work(context: WorkerContext, queue: str, *, hint: str | None = None) -> int:
    """Do one unit of a queue; how many were done (0: the hint was stale, another worker has the unit).

    ``hint``: the traceparent of the hint; the unit that is claimed may be another one than the hint was sent for.
    """
    refused = installation.refusal(context.database)
    if refused is not None:  # the unit stays where it is, for a worker of the right release
        log.error("no unit of queue %s is taken: %s", queue, refused)
        return 0
    with context.database.write() as session:
        lease = units.claim(session, queue, owner=context.worker_id, lease_seconds=context.settings.lease_seconds)
    if lease is None:
        return 0
    ids = {"unit": lease.unit_id, "kind": lease.kind.value, "sweep": lease.sweep_id, "subject": lease.subject_id}
    noted: dict[str, Any] = {
        f"quantsieve__{name}": value for name, value in (ids | {"worker": context.worker_id}).items()
    }
    name = f"unit {lease.kind}"
    with logs.fields(**ids), tracing.span(name, parent=lease.trace, link=hint, **noted) as span:
        span.note(quantsieve__token=lease.token)
        run_unit(context, lease, span)
    return 1
