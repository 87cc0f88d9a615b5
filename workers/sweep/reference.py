"""The fp32 outputs of a shard, where they are needed by themselves."""

from collections.abc import Sequence

import numpy as np

from service.domain.errors import SweepFailure
from service.domain.layers import FP32, Variant
from workers.backends.protocol import Array
from workers.data.binding import Batch
from workers.sandbox.model import SandboxedModel
from workers.sweep.job import Job


def reference(job: Job, model: SandboxedModel, batches: Sequence[Batch], output: str) -> list[Array]:
    """Of this output, batch by batch; raises SweepFailure (``fp32-failed``) where the model does not run."""
    fp32 = Variant(name=FP32, int8=frozenset())
    outputs: dict[int, Array] = {}
    for done in model.evaluate([each.inputs for each in batches], [fp32]):
        job.held.checkpoint()
        if done.outputs is None:
            raise SweepFailure(f"the model does not run in fp32: {done.failure}", code="fp32-failed")
        outputs[done.batch] = np.asarray(done.outputs[output])
    return [outputs[each] for each in range(len(batches))]
