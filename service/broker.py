"""The broker: where hints that there is work are published. A lost hint costs time, never work."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery
from kombu.connection import Connection

from service import tracing
from service.settings import Settings

WORK_TASK = "quantsieve.work"
DATA_QUEUE = "data"
CHILD_START_SECONDS = 120.0

log = logging.getLogger(__name__)


def make_celery(settings: Settings) -> Celery:
    """A Celery application with the project's settings; no result backend: the database is the truth."""
    url = settings.resolved_broker_url
    app = Celery("quantsieve", broker=url)
    transport: dict[str, Any] = {
        "visibility_timeout": 86_400,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
    }
    if url.startswith("filesystem:"):
        transport = _filesystem_folders(settings.data_dir / "broker")
    app.conf.update(
        broker_transport_options=transport,
        broker_connection_retry_on_startup=True,
        task_acks_late=True,
        task_ignore_result=True,
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_pool_start_method="spawn",
        # a spawned child that is not up by then is killed: Celery's 4 s are too few for a busy machine, which would go
        # on to kill every child that it starts
        worker_proc_alive_timeout=CHILD_START_SECONDS,
        worker_hijack_root_logger=False,
        # fail a publish fast: the reconciler publishes again what the broker did not take
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1},
    )
    return app


def _filesystem_folders(folder: Path) -> dict[str, Any]:
    messages, control, processed = folder / "messages", folder / "control", folder / "processed"
    for each in (messages, control, processed):
        each.mkdir(parents=True, exist_ok=True)
    return {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(control),
        "processed_folder": str(processed),
        "store_processed": False,
    }


class Hints:
    """Publishes hints; a broker that is down is logged, not raised."""

    def __init__(self, settings: Settings) -> None:
        self._celery = make_celery(settings)

    def publish(self, queue: str, count: int = 1) -> bool:
        """Say ``count`` times that a queue has work; False where the broker did not take it."""
        trace = tracing.current()
        headers = {tracing.HEADER: trace} if trace is not None else None
        try:
            for _ in range(count):
                self._celery.send_task(WORK_TASK, args=[queue], queue=queue, headers=headers)
        except (
            Exception
        ) as error:  # the broker may fail in any way its transport knows; the reconciler repeats the hint
            log.warning("the broker took no hint for queue %s: %s", queue, error)
            return False
        return True

    def waiting(self, queue: str) -> int:
        """How many hints the broker holds that no worker has taken; 0 where it does not say."""
        try:
            with self._connected() as connection:
                channel: Any = connection.default_channel
                return int(channel.queue_declare(queue=queue, passive=True).message_count)
        except ChannelError:  # it knows no such queue: nothing was ever published there, or all was taken
            return 0
        except Exception as error:  # as above: any transport's own errors
            log.warning("the broker does not say how many hints queue %s holds: %s", queue, error)
            return 0

    def answers(self) -> bool:
        """Whether the broker takes a connection now."""
        try:
            with self._connected():
                return True
        except Exception as error:  # as above: any transport's own errors
            log.warning("the broker does not answer: %s", error)
            return False

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=2)
            yield connection
