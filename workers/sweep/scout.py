"""Before a race by KL divergence: how unsure fp32 is of each sample of one shard, by which samples are then drawn.

A sample's divergence grows with how unsure the network is of it, so that on most samples there is next to none, and a
few make the mean. A race that draws samples in proportion needs far fewer of them (docs/benchmarks.md).
"""

import numpy as np

from service.domain.errors import SweepFailure
from service.store import units
from workers.backends.protocol import Array
from workers.engine import racing
from workers.metrics.per_sample import is_distribution, scored, uncertainty
from workers.metrics.shard_result import ShardResult
from workers.metrics.task_metric import TaskMetric
from workers.sweep import reuse
from workers.sweep.drawing import UNCERTAINTY
from workers.sweep.fitting import in_batches_that_fit
from workers.sweep.job import Job
from workers.sweep.outcome import Scouted
from workers.sweep.plan import sweep_variants
from workers.sweep.reference import reference


def run(job: Job) -> Scouted:
    """The shard's uncertainties: found where an earlier sweep had them, else from one fp32 pass."""
    metric = job.metric()
    key = reuse.scout_key(job, metric)
    with job.context.database.read() as session:
        stored = units.results_by_content(session, key)
    result = ShardResult.from_bytes(job.context.blobs.read(stored[0])) if stored else _scout(job, metric)
    return Scouted(
        result,
        key,
        variants=len(sweep_variants(job.active_layers(), job.settings.mode)),
        shards=racing.looks(job.plan.shard_sizes())[0],
    )


def _scout(job: Job, metric: TaskMetric) -> ShardResult:
    job.read_next_shard()
    outputs = in_batches_that_fit(job, lambda size: _outputs(job, metric, size))
    distribution = all(is_distribution(each) for each in outputs)
    found = [uncertainty(scored(each, distribution=distribution)) for each in outputs]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        assert metric.measure is not None
        raise SweepFailure(metric.missing(metric.measure), code="metric-not-applicable")
    return ShardResult(("fp32",), {UNCERTAINTY: np.concatenate(known)[None]})


def _outputs(job: Job, metric: TaskMetric, size: int) -> list[Array]:
    model, batches = job.open_model(), job.shard(size)
    model.set_amax(job.amax)
    return reference(job, model, batches, metric.output)
