"""A worker whose work on a shard is a wait: it claims, leases, stores and finishes as any other, and computes nothing.

Celery's pool is ``solo``, not ``prefork``: a child that is spawned would know nothing of the wait.
"""

import os
import time

import numpy as np

from service.domain.settings import BackendName
from service.domain.states import UnitKind
from workers.metrics.shard_result import ShardResult
from workers.sweep import runner
from workers.sweep.job import Job
from workers.sweep.outcome import Scouted

WAIT_SECONDS = float(os.environ.get("BENCH_WAIT_SECONDS", "0"))
VARIANTS = tuple(f"variant {number}" for number in range(24))


def wait(job: Job) -> Scouted:
    """A result of 24 variants on 128 samples, after the wait."""
    time.sleep(WAIT_SECONDS)
    values = np.full((len(VARIANTS), 128), float(job.lease.ordinal))
    result = ShardResult(VARIANTS, {"top1": values, "loss": values}, identities=VARIANTS)
    return Scouted(result, content_key=f"{job.sweep_id} {job.lease.ordinal}", variants=0, shards=0)


# of all units with shards, those that scout need no plan that a model was read for
runner.PHASES[UnitKind.SCOUT] = wait

if __name__ == "__main__":
    from workers.celery_app import app

    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    app.worker_main(["worker", f"--queues={BackendName.ONNXRUNTIME}", "--pool=solo", *quiet])
