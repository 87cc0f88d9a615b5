"""Whether a sweep can be run at all: the rules that its settings must meet beyond their own shape."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from service.domain.costs import CostName, Precision
from service.domain.errors import InvalidInput, NotFound, Unavailable
from service.domain.scheduling import DeviceKind, queue_of
from service.domain.settings import (
    BackendName,
    Quantization,
    SelectionAlgorithm,
    SelectionSettings,
    SweepMode,
    SweepSettings,
    WeightGranularity,
)
from service.domain.states import ResourceState
from service.inspection.formats import ModelFormat
from service.store import sweeps
from service.store.sweeps import Subjects
from service.store.tables import DatasetRow, ModelRow, WorkerRow

BACKENDS_OF_FORMAT = {
    "onnx": (BackendName.ONNXRUNTIME, BackendName.TENSORRT),
    "pt2": (BackendName.TORCH,),
}
NEEDS_LABELS = frozenset({"top1", "top5"})
PROBED = ("kl", "mse")
PREDICTED = ("cost", "always_int8", "never_int8", "groups", "fused_groups", "holdout")
"""The options of a selection that go with lists proposed by prediction."""
FIELD_OF_PROBLEM = {
    "model-not-found": "model",
    "dataset-not-found": "dataset",
    "calibration-not-found": "calibration.cache",
}
WITHOUT_LABELS = "mse, sqnr, cosine, kl and agreement need none"


@dataclass(frozen=True)
class Admission:
    """The sweep can be run: on this backend, and with these warnings."""

    subjects: Subjects
    backend: BackendName
    warnings: tuple[dict[str, str], ...]


def admit(session: Session, settings: SweepSettings, live: Sequence[WorkerRow]) -> Admission:
    """Check everything that is known now; raises InvalidInput, or Unavailable where no worker can do it."""
    _check_text(settings)
    subjects = _subjects(session, settings)
    _check_model(settings, subjects.model)
    backend = _backend(settings, subjects.model)
    if settings.segments is not None and backend is not BackendName.ONNXRUNTIME:
        message = f"segments: {settings.segments} is for backend onnxruntime; {backend} takes none, leave it out"
        raise InvalidInput(message, field="segments")
    if settings.device is DeviceKind.CPU and backend is BackendName.TENSORRT:
        raise InvalidInput("device: cpu is not for backend tensorrt, which runs on GPUs; leave it out", field="device")
    _check_quantization(settings, backend)
    if settings.fallback_precision is not Precision.FP32 and subjects.model.format != ModelFormat.ONNX:
        message = (
            f"fallback_precision: {settings.fallback_precision} is that of layers in mixed.onnx, which a model in the "
            f"format {subjects.model.format} does not leave; leave it out"
        )
        raise InvalidInput(message, field="fallback_precision")
    check_question(settings, subjects.dataset)
    _check_latency(settings.selection, subjects.model.format)
    _check_samples(settings, subjects)
    warnings = check_workers(backend, live, settings.device)
    return Admission(subjects, backend, warnings)


def _check_text(settings: SweepSettings) -> None:
    metric = settings.metric
    values = {
        "metric.name": metric.name,
        "metric.args": metric.args,
        "metric.output": metric.output,
        "include": settings.include,
        "exclude": settings.exclude,
    }
    for field, value in values.items():
        if not _can_be_kept(value):
            message = f"{field}: it holds a number that is not finite, or a character that is none"
            raise InvalidInput(message, field=field)


def _can_be_kept(value: Any) -> bool:
    """Whether a database can store the value as JSON and give it out again."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except ValueError:
        return False
    return "\\u0000" not in text


def _subjects(session: Session, settings: SweepSettings) -> Subjects:
    try:
        subjects = sweeps.subjects_of(session, settings)
    except NotFound as error:
        raise InvalidInput(error.message, field=FIELD_OF_PROBLEM[error.code], code=error.code) from None
    named: tuple[tuple[str, ModelRow | DatasetRow], ...] = (
        ("model", subjects.model),
        ("dataset", subjects.dataset),
        ("calibration.dataset", subjects.calibration),
    )
    for field, row in named:
        if row.state == ResourceState.REJECTED:
            code = "model-rejected" if field == "model" else "dataset-rejected"
            raise InvalidInput(f"{field}: {row.id} was rejected: {row.problem}", field=field, code=code)
    return subjects


def _check_model(settings: SweepSettings, model: ModelRow) -> None:
    if model.info.get("quantized"):
        message = f"model: {model.id} is quantized already; upload the fp32 one"
        raise InvalidInput(message, field="model", code="model-quantized")
    if settings.calibration.cache is not None and model.format != ModelFormat.ONNX:
        message = (
            f"calibration.cache: a cache has the names of an ONNX graph's tensors, and {model.id} is a model in the "
            f"format {model.format}, which has none; upload the model as ONNX, or choose a calibration method"
        )
        raise InvalidInput(message, field="calibration.cache", code="cache-needs-onnx")


def _backend(settings: SweepSettings, model: ModelRow) -> BackendName:
    possible = BACKENDS_OF_FORMAT[model.format]
    if settings.backend is None:
        return possible[0]
    if settings.backend not in possible:
        others = " or ".join(possible)
        message = f"backend: {settings.backend} cannot run a model in the format {model.format}; {others} can"
        raise InvalidInput(message, field="backend", code="backend-format-mismatch")
    return settings.backend


def _check_quantization(settings: SweepSettings, backend: BackendName) -> None:
    if settings.quantization is Quantization.EXPLICIT:
        return
    if backend is not BackendName.TENSORRT:
        message = f"quantization: implicit is for backend tensorrt; {backend} quantizes explicitly, leave it out"
        raise InvalidInput(message, field="quantization")
    if settings.weights is not WeightGranularity.PER_CHANNEL:
        message = (
            f"weights: {settings.weights} does not go with quantization implicit, where TensorRT scales weights by "
            "itself, per channel"
        )
        raise InvalidInput(message, field="weights")


def check_question(settings: SweepSettings, dataset: DatasetRow) -> None:
    """Whether selection, budget, method and metric go together; raises InvalidInput."""
    _check_selection(settings)
    _check_method(settings)
    _check_metric(settings, dataset)


def _check_latency(selection: SelectionSettings, model_format: str) -> None:
    """Raises InvalidInput where latency is to be kept small and cannot be measured."""
    if selection.cost is CostName.LATENCY and model_format != ModelFormat.ONNX:
        message = (
            f"selection.cost: latency is measured on ONNX graphs, and the model is in the format {model_format}, whose "
            "torch timings are no int8 latencies; upload ONNX, or keep layers, macs, weight_bytes or bops small"
        )
        raise InvalidInput(message, field="selection.cost")


def _check_selection(settings: SweepSettings) -> None:
    asked, default = settings.selection, SelectionSettings()
    if asked.algorithm is SelectionAlgorithm.OPTIMAL and not settings.predicts:
        why = "needs a budget; give one" if settings.budget is None else "needs every layer on all samples"
        advice = "" if settings.budget is None else f", which method {settings.method} does not measure; use exact"
        raise InvalidInput(f"selection.algorithm: optimal {why}{advice}", field="selection.algorithm")
    for name in PREDICTED:
        value = getattr(asked, name)
        if value != getattr(default, name) and not settings.predicts:
            message = (
                f"selection.{name}: {value!r} is for lists that are proposed by prediction; give a budget, algorithm "
                "optimal (or threshold, top_k), and another method than racing"
            )
            raise InvalidInput(message, field=f"selection.{name}")


def _check_method(settings: SweepSettings) -> None:
    method, metric = settings.method, settings.metric.name
    if not method.probes:
        return
    if settings.mode is not SweepMode.ONE_ON:
        message = f"mode: {settings.mode} is not for method {method}, whose gradients are those of the fp32 model"
        raise InvalidInput(f"{message}; use one_on, or method exact", field="mode")
    if settings.selection.threshold is not None and metric not in PROBED:
        message = (
            f"selection.threshold: {settings.selection.threshold:g} is a drop of {metric}, and method {method} ranks "
            f"layers by {' or '.join(PROBED)}; use one of these as the metric, or method exact"
        )
        raise InvalidInput(message, field="selection.threshold")


def _check_metric(settings: SweepSettings, dataset: DatasetRow) -> None:
    name = settings.metric.name
    if name in NEEDS_LABELS and dataset.info.get("has_labels") is False:
        message = f"metric.name: {name} needs labels, and {dataset.id} holds none; {WITHOUT_LABELS}"
        raise InvalidInput(message, field="metric.name", code="labels-missing")
    if name == "sqnr" and settings.budget is not None:
        message = "budget: a drop of sqnr is without bound, since fp32 has none; set a budget on another metric"
        raise InvalidInput(message, field="budget", code="budget-needs-finite-metric")


def _check_samples(settings: SweepSettings, subjects: Subjects) -> None:
    held = subjects.dataset.info.get("samples")
    if settings.samples is not None and isinstance(held, int) and settings.samples > held:
        message = f"samples: {settings.samples} were asked for, but {subjects.dataset.id} holds {held}"
        raise InvalidInput(message, field="samples")


def check_workers(
    backend: BackendName, live: Sequence[WorkerRow], device: DeviceKind = DeviceKind.ANY
) -> tuple[dict[str, str], ...]:
    """Warnings where the work has to wait for a worker; raises Unavailable where those that are there can't do it."""
    offers: list[dict[str, Any]] = [worker.capabilities.get(backend.value) or {} for worker in live]
    where = "" if device is DeviceKind.ANY else f" on {device}"
    if any(offer.get("available") for offer in offers):
        if where and not any(queue_of(backend, device) in worker.queues for worker in live):
            message = f"device: no worker offers {backend}{where}; leave device out, or start a worker that does"
            raise Unavailable(message, code="device-unavailable")
        return ()
    if backend is BackendName.TENSORRT or live:
        reasons = sorted({str(offer["reason"]) for offer in offers if offer.get("reason")})
        why = f": {'; '.join(reasons)}" if reasons else " (none is running)" if not live else ""
        raise Unavailable(f"backend: no worker offers {backend}{why}", code="backend-unavailable")
    message = f"no worker is running; the sweep starts when one that offers {backend}{where} does"
    return ({"code": "no-worker", "message": message},)
