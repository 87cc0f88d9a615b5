"""Whether a conversion can be made at all: what its settings must meet beyond their own shape."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from service.api.admission import check_workers
from service.domain.conversion import ConversionSettings
from service.domain.errors import InvalidInput, NotFound
from service.domain.settings import BackendName
from service.domain.states import ResourceState
from service.inspection.formats import ModelFormat
from service.store.resources import share
from service.store.tables import CalibrationRow, ModelRow, WorkerRow


def admit_conversion(session: Session, settings: ConversionSettings, live: Sequence[WorkerRow]) -> ModelRow:
    """The model, which does not change until the transaction ends, nor the cache.

    Raises InvalidInput that names the field, or Unavailable where no worker reads ONNX files.
    """
    try:
        model = share(session, ModelRow, settings.model)
        if settings.calibration is not None:
            share(session, CalibrationRow, settings.calibration)
    except NotFound as error:
        field = "model" if error.code == "model-not-found" else "calibration"
        raise InvalidInput(error.message, field=field, code=error.code) from None
    _check_model(settings, model)
    check_workers(BackendName.ONNXRUNTIME, live)
    return model


def _check_model(settings: ConversionSettings, model: ModelRow) -> None:
    if model.state == ResourceState.REJECTED:
        message = f"model: {model.id} was rejected: {model.problem}"
        raise InvalidInput(message, field="model", code="model-rejected")
    if model.format != ModelFormat.ONNX:
        message = f"model: {model.id} has the format {model.format}; Q/DQ and caches belong to ONNX models"
        raise InvalidInput(message, field="model", code="conversion-needs-onnx")
    if model.state == ResourceState.CHECKING:
        return  # the worker that converts it will see
    quantized = bool(model.info.get("quantized"))
    if settings.to_qdq and quantized:
        message = f"model: {model.id} is quantized already; a calibration cache goes with the fp32 one"
        raise InvalidInput(message, field="model", code="model-quantized")
    if not settings.to_qdq and not quantized:
        message = f"model: {model.id} has no Q/DQ whose scales a cache could hold; to make Q/DQ, give calibration too"
        raise InvalidInput(message, field="model", code="model-not-quantized")
