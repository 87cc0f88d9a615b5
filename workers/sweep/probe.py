"""Before measuring, where the method asks for it: every layer of one shard of samples by a few backward passes."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from service.domain.errors import SweepFailure
from service.domain.layers import FP32, Variant
from service.store import units
from workers.backends.protocol import OutOfMemory
from workers.data.binding import Batch
from workers.engine.probe_settings import ProbeSettings
from workers.engine.probe_sums import ProbeSums
from workers.metrics.per_sample import is_distribution
from workers.metrics.task_metric import TaskMetric
from workers.sandbox.model import SandboxedModel
from workers.sweep import reuse
from workers.sweep.job import Job
from workers.sweep.outcome import Probed

log = logging.getLogger(__name__)


def run(job: Job) -> Probed:
    """The shard's sums: found where an earlier sweep made them, else made."""
    metric, layers = job.metric(), job.active_layers()
    key = reuse.probe_key(job, metric, layers)
    with job.context.database.read() as session:
        stored = units.results_by_content(session, key)
    sums = ProbeSums.from_bytes(job.context.blobs.read(stored[0])) if stored else _probe(job, metric)
    return Probed(sums, key, found=bool(stored), warnings=_warnings(sums))


def _probe(job: Job, metric: TaskMetric) -> ProbeSums:
    """Smaller batches where the device has no room, down to single samples."""
    model, options = job.open_model(), job.settings.probe
    model.set_amax(job.amax)
    settings = ProbeSettings(
        metric.output,
        layers=frozenset(each.id for each in job.active_layers()),
        distribution=is_distribution(_first_output(job, model, metric.output)),
        probes=options.directions,
        loss=options.loss,
        seed=job.settings.seed,
    )
    job.read_next_shard()
    while True:
        try:
            return model.probe(_batches(job), settings)
        except OutOfMemory as error:
            if settings.micro_batch == 1 or model.facts.batch_size is not None:
                raise SweepFailure(f"the device's memory is too small: {error}", code="out-of-memory") from error
            settings = replace(settings, micro_batch=settings.micro_batch // 2)
            log.warning("out of memory; going on with %d samples at a time", settings.micro_batch)


def _batches(job: Job) -> Iterator[Batch]:
    batches = job.shard(job.plan.batch_size)
    for index, batch in enumerate(batches):
        job.held.checkpoint(index / len(batches))
        yield batch


def _first_output(job: Job, model: SandboxedModel, output: str) -> np.ndarray:
    """The fp32 output of the shard's first batch: enough to see whether its rows are probabilities."""
    first = next(_batches(job))
    (done,) = model.evaluate([first.inputs], [Variant(name=FP32, int8=frozenset())])
    if done.outputs is None:
        raise SweepFailure(f"the model does not run in fp32: {done.failure}", code="fp32-failed")
    return np.asarray(done.outputs[output])


def _warnings(sums: ProbeSums) -> list[dict[str, str]]:
    if not sums.constants:
        return []
    names = ", ".join(sums.constants[:5]) + (" …" if len(sums.constants) > 5 else "")
    message = (
        f"{len(sums.constants)} operations have no derivative, so that probes take them as constant and see nothing "
        f"of the int8 errors that go through them: {names}"
    )
    return [{"code": "probe-constants", "message": message}]
