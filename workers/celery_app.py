"""The Celery application of a worker process: the task, and the parent's heartbeat, reconciler and farewell.

The parent of the pool never imports torch or a runtime: only the pool's child, spawned afresh, opens models.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

from celery.signals import (
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)

from service import tracing
from service.broker import WORK_TASK, make_celery
from service.logs import log_to_stderr
from service.settings import Settings
from service.store.identifiers import Prefix, new_id
from workers.context import WorkerContext
from workers.presence import Presence, leave
from workers.reconciler import Reconciler

# the pool's children inherit it (main sets a fresh one), so that the parent can give back what a child holds
WORKER_ID = os.environ.setdefault("QUANTSIEVE_WORKER_ID", new_id(Prefix.WORKER))

app = make_celery(Settings())


@cache
def _context() -> WorkerContext:
    return WorkerContext.open(Settings(), WORKER_ID)


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log(**_: Any) -> None:
    """In the parent and in each child, instead of Celery's own."""
    log_to_stderr(Settings().log_format, logging.INFO, worker=WORKER_ID)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _trace(**_: Any) -> None:
    worker_process_shutdown.connect(_dropping(tracing.start("quantsieve-worker")), weak=False)


def _dropping(send: Callable[[], None]) -> Callable[..., None]:
    return lambda **_: send()


@app.task(name=WORK_TASK, bind=True)  # type: ignore[untyped-decorator]
def work(task: Any, queue: str) -> None:
    """Claim a unit of the queue and do it."""
    from workers.tasks import work as do_work  # only the pool's child may load the engine

    do_work(_context(), queue, hint=task.request.get(tracing.HEADER))


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _warm_up(**given: Any) -> None:
    """In the pool's child: what makes sandboxes loads its code while the child still waits for work."""
    _ = _context().sandbox


_threads: list[Reconciler | Presence] = []


@worker_ready.connect  # type: ignore[untyped-decorator]
def _start(sender: Any = None, **_: Any) -> None:
    queues = [queue.name for queue in sender.task_consumer.queues]
    _threads.extend([Reconciler(_context()), Presence(_context(), queues)])
    for thread in _threads:
        thread.start()
    _give_back_on_sigterm()


def _give_back_on_sigterm() -> None:
    """Before Celery's own handler ends the child: that may take as long as the child's call into a runtime."""
    then = signal.getsignal(signal.SIGTERM)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        # not in the handler itself: what it interrupts may hold a lock. The process waits for the thread before it ends
        threading.Thread(target=_farewell, name="farewell").start()
        if callable(then):
            then(number, frame)

    signal.signal(signal.SIGTERM, on_sigterm)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _farewell(**_: Any) -> None:
    """Leave, and leave nothing behind; once more at the very end, when no child is there that could claim."""
    for thread in _threads:
        thread.stop()
    for thread in _threads:
        thread.join()
    leave(_context())
