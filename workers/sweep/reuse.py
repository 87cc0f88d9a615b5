"""Finds results that were measured before: by content, in any sweep of the project that is still stored.

What calibration counts is found by one key, ``calibration_key``. Two keys name a result of measuring. The shard's names
all that its variants have in common: the bytes of model and evaluation set, the preprocessing, the samples, how the
model is opened, the versions of all that computes, and the content of the plugin libraries of a model with plugins.
Both name the project: nobody learns from the speed of a sweep what another project has measured. A variant's identity
names its int8 layers with their ranges. Budget, selection and the metric's name are in neither: every measure of a
sample is recorded whatever the metric is.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from service.domain.layers import FP32_REPEATED, Layer, Variant
from service.store import units
from service.store.tables import DEFAULT_PROJECT
from workers.metrics.shard_result import ShardResult
from workers.metrics.task_metric import TaskMetric
from workers.sweep.environment import environment_of
from workers.sweep.job import Job
from workers.sweep.plan import Shard

ENVIRONMENT = ("backend", "device", "provider", "machine", "versions")
"""What computes, of the sweep's environment."""


def content_key(job: Job, metric: TaskMetric) -> str:
    """The key of the unit's shard, as SHA-256 in hexadecimal."""
    plan, settings, shard = job.plan, job.settings, job.lease.payload
    indices = job.order()[shard["start"] : shard["stop"]]
    return _digest(
        {
            "model": job.model.sha256,
            "dataset": job.dataset.sha256,
            "preprocessing": job.dataset.preprocessing,
            "samples": hashlib.sha256(indices.tobytes()).hexdigest(),
            "batch_size": plan.batch_size,
            "fuse_bn": settings.fuse_bn,
            "segments": settings.segments,
            "weights": settings.weights,
            "quantization": settings.quantization,
            "output": metric.output,
            # its states are recorded only where it is asked for
            "corpus_metric": settings.metric.model_dump(mode="json") if metric.corpus is not None else None,
            **_computed_by(job),
        }
    )


def probe_key(job: Job, metric: TaskMetric, layers: Sequence[Layer]) -> str:
    """The key of the probes of the unit's shard, as SHA-256 in hexadecimal."""
    ranges = {layer.id: {edge: job.amax[edge] for edge in layer.activations} for layer in layers}
    options = job.settings.probe.model_dump(mode="json")
    return _digest({"shard": content_key(job, metric), "int8": ranges, "probe": options, "seed": job.settings.seed})


def scout_key(job: Job, metric: TaskMetric) -> str:
    """The key of fp32's uncertainties on the unit's shard, as SHA-256 in hexadecimal."""
    return _digest({"kind": "scout", "shard": content_key(job, metric)})


def calibration_key(job: Job, shard: Shard) -> str:
    """The key of what one shard of the calibration samples leaves behind, for every method and variant.

    The first batch fixes the bins, so that its size is in it.
    """
    plan = job.plan
    return _digest(
        {
            "kind": "calibration",
            "model": job.model.sha256,
            "dataset": job.calibration.sha256,
            "preprocessing": job.calibration.preprocessing,
            "samples": [shard.start, shard.stop],
            "first_batch": min(plan.batch_size, plan.calibration_samples),
            "batch_size": plan.batch_size,
            "fuse_bn": job.settings.fuse_bn,
            **_computed_by(job),
        }
    )


def identities(variants: Sequence[Variant], layers: Sequence[Layer], amax: Mapping[str, float]) -> tuple[str, ...]:
    """The identity of each variant."""
    ranges = {layer.id: {edge: amax[edge] for edge in layer.activations if edge in amax} for layer in layers}
    return tuple(
        _digest(
            {
                "int8": {layer: ranges[layer] for layer in each.int8},
                # the control that shows what repeating alone changes must have been run a second time
                "repeated": each.name == FP32_REPEATED,
            }
        )
        for each in variants
    )


def find(job: Job, key: str, wanted: Sequence[str]) -> list[ShardResult]:
    """Results of this shard that hold some of the wanted identities."""
    with job.context.database.read() as session:
        hashes = units.results_by_content(session, key)
    found: list[ShardResult] = []
    missing = set(wanted)
    for sha256 in hashes:
        if not missing:
            break
        result = ShardResult.from_bytes(job.context.blobs.read(sha256))
        if missing & set(result.identities):
            found.append(result)
            missing -= set(result.identities)
    return found


def _computed_by(job: Job) -> dict[str, object]:
    """All that computes, and for whom: where, in which versions, and of plugins the content of their libraries."""
    environment = job.sweep.environment
    if job.selection is not None:  # measured later, so perhaps by others than the sweep; the libraries must be the same
        environment = {**environment, **environment_of(job)}
    known: dict[str, object] = {name: environment.get(name) for name in ENVIRONMENT}
    libraries = sorted(environment.get("libraries", {}))
    if job.sweep.project_id != DEFAULT_PROJECT:  # what was measured before there were projects is that one's
        known["project"] = job.sweep.project_id
    return known | ({"libraries": libraries} if libraries else {})


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
