"""Phase 2, its work on samples: count what flows over every activation edge in fp32, on one shard of them.

Every shard counts on the grids that the first batch fixes, which its unit therefore runs too. What is counted serves
every calibration method and variant, so that a later sweep finds it by content, whatever its method is.
"""

from collections.abc import Iterator

import numpy as np

from service.domain.errors import InvalidInput, SweepFailure
from service.store import units
from workers.backends.protocol import Array, Tensors
from workers.calibration.histogram import Grid, Histogram
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
    counting = _Counting(job, shard)
    try:
        job.open_model().observe(counting.batches(), counting.observe)
    except InvalidInput as error:
        raise SweepFailure(error.message, code=error.code) from error
    return Counted(Histograms(counting.histograms), key, samples=shard.stop - shard.start)


class _Counting:
    """The pass over the samples: batches are shown one by one, so that it is known whose tensors are observed."""

    def __init__(self, job: Job, shard: Shard) -> None:
        self._job, self._shard = job, shard
        self._first = min(job.plan.batch_size, job.plan.calibration_samples)
        self._grids: dict[str, Grid] = {}
        self._in_first = True
        self.histograms: dict[str, Histogram] = {}

    def batches(self) -> Iterator[Tensors]:
        """The first batch of all samples, then the shard's."""
        shard, size = self._shard, self._job.plan.batch_size
        dataset = self._job.open_dataset(calibration=True)
        yield next(iter(dataset.batches(np.arange(self._first), size))).inputs
        self._in_first = False
        start = done = max(shard.start, self._first)
        for batch in dataset.batches(np.arange(start, shard.stop), size):
            self._job.held.checkpoint((done - shard.start) / (shard.stop - shard.start))
            yield batch.inputs
            done += len(batch.indices)

    def observe(self, edge: str, tensor: Array) -> None:
        """Fix the grid of an edge, and count."""
        if self._in_first:
            self._grids[edge] = Grid.of(tensor)
        if self._in_first and self._shard.start > 0:
            return
        if edge not in self.histograms:
            # an edge that the first batch did not reach has the grid of a tensor of zeros
            self.histograms[edge] = Histogram(self._grids.get(edge, Grid.of(np.zeros(0, np.float32))))
        self.histograms[edge].update(tensor)
