"""What calibration leaves behind beside the ranges: statistics of every layer that need no labels."""

from collections.abc import Mapping, Sequence

import numpy as np

from service.domain.layers import Layer
from service.domain.results import LayerStatistics
from workers.calibration.histogram import Histogram
from workers.calibration.statistics import sqnr_db, weight_ratio
from workers.sandbox.model import SandboxedModel
from workers.sweep.job import Job

MOST_SAMPLES = 32
"""Of the calibration samples, for the SQNR: each costs a few fp32 evaluations (docs/benchmarks.md). Where a cache has
the ranges, of the evaluation set: no range, and no decision, hangs on them.
"""


def layer_statistics(
    job: Job, model: SandboxedModel, histograms: Mapping[str, Histogram], active: Sequence[Layer]
) -> dict[str, LayerStatistics]:
    """Layer id → statistics, of every layer of the model. ``active``: those that can be in int8; ranges are set."""
    sqnr = _sqnr(job, model, [each.id for each in active])
    found = {}
    for layer in job.plan.layers:
        seen = {edge: histograms[edge] for edge in layer.activations if edge in histograms}
        extents = {edge: each.extent for edge, each in seen.items() if each.finite}
        weight, db = model.weight(layer.id), sqnr.get(layer.id, "it is not measured in int8")
        found[layer.id] = LayerStatistics(
            weight_ratio=None if weight is None else weight_ratio(weight),
            activations={edge: extent for edge, extent in extents.items() if extent is not None},
            sqnr_db=None if isinstance(db, str) else db,
            no_sqnr=db if isinstance(db, str) else None,
        )
    return found


def _sqnr(job: Job, model: SandboxedModel, layers: Sequence[str]) -> dict[str, float | str]:
    """Layer id → dB, or why there is none."""
    dataset = job.open_dataset(calibration=True)
    indices = np.arange(min(MOST_SAMPLES, job.plan.calibration_samples or dataset.samples))
    batches = dataset.batches(indices, job.plan.batch_size)
    signal, noise = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0)
    failures: dict[str, str] = {}
    for errors in model.output_errors((each.inputs for each in batches), layers):
        job.held.checkpoint()
        for layer, error in errors.items():
            signal[layer] += error.signal
            noise[layer] += error.noise
            if error.failure is not None:
                failures[layer] = error.failure
    return {layer: failures.get(layer) or sqnr_db(signal[layer], noise[layer]) for layer in layers}
