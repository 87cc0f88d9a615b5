"""What folding batch norms changes of the measured model: its fp32 outputs beside those of the model as it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from service.domain.errors import InvalidInput
from service.domain.layers import FP32, Variant
from service.domain.results import FoldingDifference
from service.domain.settings import BackendName
from workers.backends.protocol import Array, OutOfMemory, Tensors
from workers.data.binding import BoundEvaluationSet
from workers.metrics.difference import max_abs, relative_rms
from workers.sandbox.model import SandboxedModel, open_sandboxed_model
from workers.sweep.job import Job
from workers.sweep.outcome import Warnings

MOST_SAMPLES = 8
"""Of the calibration samples: folding moves every sample's outputs by the order of the same rounding."""
LARGEST = 1e-4
"""Relative RMS that is not warned of. Rounding moved the outputs of the networks that were tried by 3e-7 to 4.3e-7."""


def difference(job: Job, folded: SandboxedModel, calibration: BoundEvaluationSet) -> FoldingDifference | None:
    """Measured on some calibration samples; None where no batch norm is folded.

    Of graphs that engines are built from, in ONNX Runtime on the CPU: the graphs are what differs, and two engines more
    would differ by their kernels too.
    """
    if not folded.facts.folded_batch_norms:
        return None
    samples = min(MOST_SAMPLES, calibration.samples)
    settings, runtime = job.open_settings, BackendName(job.backend)
    if folded.facts.cost_per_layer:
        settings, runtime = replace(settings, device="cpu", segments=None, implicit_int8=False), BackendName.ONNXRUNTIME
        with job.model_file() as path:
            folded = open_sandboxed_model(job.context.sandbox, runtime, path, settings)
    batches = [each.inputs for each in calibration.batches(np.arange(samples), folded.facts.batch_size or samples)]
    try:
        with job.model_file() as path:
            asked = replace(settings, fuse_bn=False, as_written=True)
            whole = open_sandboxed_model(job.context.sandbox, runtime, path, asked)
        found, expected = _outputs(folded, batches), _outputs(whole, batches)
    except (InvalidInput, OutOfMemory) as error:
        return FoldingDifference(samples=samples, max_abs=None, relative_rms=None, reason=str(error))
    return compare(found, expected, samples=samples)


def compare(found: Mapping[str, Array], expected: Mapping[str, Array], *, samples: int) -> FoldingDifference:
    """Of all outputs, by name; those that are no floating-point numbers (a class that is read off) are left out."""
    names = [name for name, each in expected.items() if each.dtype.kind == "f"]
    largest = max((max_abs(found[name], expected[name]) for name in names), default=0.0)
    relative = max((relative_rms(found[name], expected[name]) for name in names), default=0.0)
    if not math.isfinite(relative):
        reason = "only one of the two gives finite values"
        return FoldingDifference(samples=samples, max_abs=None, relative_rms=None, reason=reason)
    return FoldingDifference(samples=samples, max_abs=largest, relative_rms=relative)


def warnings(found: FoldingDifference) -> Warnings:
    """A difference beyond rounding, or one that could not be measured."""
    if found.relative_rms is None:
        message = f"what folding batch norms changes of the outputs could not be measured: {found.reason}"
        return [{"code": "folding-not-compared", "message": message}]
    if found.relative_rms <= LARGEST:
        return []
    message = (
        f"folding batch norms moves the fp32 outputs by {found.relative_rms:.1e} of their size (root mean square over "
        f"{found.samples} samples), more than {LARGEST:.0e}: fp32 in this sweep is not quite the model that was "
        "uploaded; set fuse_bn to false to measure that"
    )
    return [{"code": "folding-changes-outputs", "message": message}]


def _outputs(model: SandboxedModel, batches: Sequence[Tensors]) -> dict[str, Array]:
    """Every fp32 output, flat, all batches in one; raises InvalidInput where the model does not run."""
    found: dict[int, Tensors] = {}
    for done in model.evaluate(batches, [Variant(name=FP32, int8=frozenset())]):
        if done.outputs is None:
            raise InvalidInput(f"the model does not run in fp32: {done.failure}")
        found[done.batch] = done.outputs
    parts = [found[index] for index in range(len(batches))]
    return {name: np.concatenate([np.ravel(each[name]) for each in parts]) for name in parts[0]}
