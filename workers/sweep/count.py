"""Phase 2, its work on samples: count what flows over every activation edge in fp32, on one shard of them.

Every shard counts on the grids that the first batch fixes, which its unit therefore runs too. What is counted serves
every calibration method and variant, so that a later sweep finds it by content, whatever its method is.
"""

from collections.abc import Iterator

import numpy as np

from service.domain.errors import InvalidInput, SweepFailure
from service.store import units
from workers.backends.protocol import Tensors
from workers.calibration.histograms import Histograms
from workers.sweep.job import Job
from workers.sweep.outcome import Counted
from workers.sweep.plan import Shard
from workers.sweep.reuse import calibration_key


def run(job: Job) -> Counted:
    """The shard's histograms: found where they were counted before, else counted."""
    shard = Shard.model_validate(job.lease.payload)
    key = calibration_key(job, shard)
    with job.context.database.read() as session:
        stored = units.results_by_content(session, key)
    if stored:
        return Counted(Histograms.from_bytes(job.context.blobs.read(stored[0])), key, samples=0)
    try:
        counted = job.open_model().count(_batches(job, shard), first_counts=shard.start == 0)
    except InvalidInput as error:
        raise SweepFailure(error.message, code=error.code) from error
    return Counted(counted, key, samples=shard.stop - shard.start)


def _batches(job: Job, shard: Shard) -> Iterator[Tensors]:
    """The first batch of all samples, then the shard's."""
    size = job.plan.batch_size
    first = min(size, job.plan.calibration_samples)
    dataset = job.open_dataset(calibration=True)
    yield next(iter(dataset.batches(np.arange(first), size))).inputs
    start = done = max(shard.start, first)
    for batch in dataset.batches(np.arange(start, shard.stop), size):
        job.held.checkpoint((done - shard.start) / (shard.stop - shard.start))
        yield batch.inputs
        done += len(batch.indices)
