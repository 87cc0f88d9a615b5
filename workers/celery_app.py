"""The Celery application of a worker process: the task, and the parent's heartbeat and reconciler.

The parent of the pool never imports torch or a runtime: only the pool's child, spawned afresh, opens models.
"""

from functools import cache
from typing import Any

from celery.signals import worker_ready, worker_shutting_down

from service.broker import WORK_TASK, make_celery
from service.settings import Settings
from workers.context import WorkerContext
from workers.presence import Presence
from workers.reconciler import Reconciler

app = make_celery(Settings())


@cache
def _context() -> WorkerContext:
    return WorkerContext.open(Settings())


@app.task(name=WORK_TASK)  # type: ignore[untyped-decorator]
def work(queue: str) -> None:
    """Claim a unit of the queue and do it."""
    from workers.tasks import work as do_work  # only the pool's child may load the engine

    do_work(_context(), queue)


_threads: list[Reconciler | Presence] = []


@worker_ready.connect  # type: ignore[untyped-decorator]
def _start_threads(sender: Any = None, **_: Any) -> None:
    queues = [queue.name for queue in sender.task_consumer.queues]
    _threads.extend([Reconciler(_context()), Presence(_context(), queues)])
    for thread in _threads:
        thread.start()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop_threads(**_: Any) -> None:
    for thread in _threads:
        thread.stop()
