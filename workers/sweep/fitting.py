"""Does work in batches, in smaller ones where the device has no room."""

import logging
from collections.abc import Callable
from typing import TypeVar

from service.domain.errors import SweepFailure
from workers.backends.protocol import OutOfMemory
from workers.sweep.job import Job

log = logging.getLogger(__name__)

Result = TypeVar("Result")


def in_batches_that_fit(job: Job, work: Callable[[int], Result]) -> Result:
    """What ``work`` gives with the plan's batch size, or with the largest half of it that fits, down to single samples.

    Raises SweepFailure (``out-of-memory``) where not even that does.
    """
    size = job.plan.batch_size
    while True:
        try:
            return work(size)
        except OutOfMemory as error:
            if size == 1 or job.open_model().facts.batch_size is not None:
                raise SweepFailure(f"the device's memory is too small: {error}", code="out-of-memory") from error
            size = size // 2
            log.warning("out of memory; going on with batches of %d", size)
