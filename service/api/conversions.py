"""Conversions: a calibration cache to explicit Q/DQ, as TensorRT 11 needs it, and back."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Body, Path, Response
from pydantic import BaseModel

from service.api.conversion_admission import admit_conversion
from service.api.deps import Cursor, InServices, Limit
from service.api.downloads import ArtifactView, listed, sent
from service.api.problems import documented
from service.api.streamed import FILE, Part
from service.api.sweep_views import Message
from service.api.tidying import tidy
from service.api.times import instant, instant_or_none
from service.domain.conversion import ConversionSettings, ConversionSummary
from service.domain.errors import Conflict, NotFound
from service.domain.settings import BackendName
from service.domain.states import ConversionState
from service.store import conversions, workers
from service.store.pages import read_page
from service.store.tables import ConversionFileRow, ConversionRow

router = APIRouter(prefix="/v1/conversions", tags=["conversions"])

ConversionId = Annotated[str, Path(max_length=64, description="A conversion's id, such as `cnv_4q8c1z0rk2vx`.")]
POLL_SECONDS = "1"
Asked = Annotated[
    ConversionSettings,
    Body(
        openapi_examples={
            "cache to Q/DQ": {"value": {"model": "mdl_4q8c1z0rk2vx", "calibration": "cal_7d2m5h9s3wqa"}},
            "Q/DQ to a cache": {"value": {"model": "mdl_9k1x6v4t8ebn", "algorithm": "MinMaxCalibration"}},
        }
    ),
]


class ConversionView(BaseModel):
    """A conversion. ``problem``: why it failed; ``summary`` and ``files`` are there once it has succeeded.

    To Q/DQ the files are `qdq.onnx` (with `qdq.onnx.data` where it is larger than 2 GiB), else `float32.onnx` and
    `calibration.cache`. `conversion.json` names every layer that stayed in floating point with the reason, every scale
    that was changed, and the linter's findings.
    """

    id: str
    state: ConversionState
    problem: Message | None
    settings: ConversionSettings
    summary: ConversionSummary | None
    files: list[ArtifactView]
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: ConversionRow, files: list[ConversionFileRow]) -> "ConversionView":
        """The view of stored rows."""
        return cls(
            id=row.id,
            state=ConversionState(row.state),
            problem=Message.of_problem(row.problem_code, row.problem, "conversion-failed"),
            settings=ConversionSettings.model_validate(row.settings),
            summary=ConversionSummary.model_validate(row.summary) if row.summary else None,
            files=listed(files, f"/v1/conversions/{row.id}/files"),
            created_at=instant(row.created_at),
            finished_at=instant_or_none(row.finished_at),
        )


class ConversionList(BaseModel):
    """One page of conversions, newest first."""

    items: list[ConversionView]
    next_cursor: str | None


@router.post("", status_code=202, responses=documented(400, 413, 503))
def create_conversion(settings: Asked, response: Response, services: InServices) -> ConversionView:
    """Ask for a conversion; a worker makes it, once the model is checked.

    With `calibration`, the float32 model gets Q/DQ with the scales of that cache, bit for bit. Without, the model is a
    Q/DQ one of any tool: its activation scales become a cache, and the rest a float32 model.
    """
    with services.database.write() as session:
        model = admit_conversion(session, settings, workers.able(session))
        row, queue = conversions.create(session, settings, model, queue=BackendName.ONNXRUNTIME)
        view = ConversionView.of(row, [])
    if queue is not None:
        services.hints.publish(queue)
    response.headers.update({"Location": f"/v1/conversions/{row.id}", "Retry-After": POLL_SECONDS})
    return view


@router.get("")
def list_conversions(services: InServices, limit: Limit = 50, cursor: Cursor = None) -> ConversionList:
    """The conversions, newest first."""
    with services.database.read() as session:
        page = read_page(session, ConversionRow, limit=limit, cursor=cursor)
        items = [ConversionView.of(row, conversions.files(session, row.id)) for row in page.items]
    return ConversionList(items=items, next_cursor=page.next_cursor)


@router.get("/{conversion_id}", responses=documented(404))
def get_conversion(services: InServices, response: Response, conversion_id: ConversionId) -> ConversionView:
    """Where a conversion stands, and what it made: always 200, however it went."""
    with services.database.read() as session:
        row = conversions.get(session, conversion_id)
        view = ConversionView.of(row, conversions.files(session, row.id))
    if not view.state.terminal:
        response.headers["Retry-After"] = POLL_SECONDS
    return view


@router.get("/{conversion_id}/files/{name}", response_class=Response, responses=FILE)
def get_conversion_file(
    services: InServices, conversion_id: ConversionId, name: Annotated[str, Path(max_length=200)], part: Part
) -> Response:
    """One file, as a download."""
    with services.database.read() as session:
        row = conversions.get(session, conversion_id)
        files = {each.name: each for each in conversions.files(session, row.id)}
    if row.state == ConversionState.CONVERTING:
        raise Conflict(f"conversion {row.id} has not ended", code="conversion-not-ready")
    if row.state == ConversionState.FAILED:
        raise Conflict(f"conversion {row.id} failed: {row.problem}", code="conversion-failed")
    if name not in files:
        raise NotFound(f"conversion {row.id} has no file {name!r}", code="file-not-found")
    return sent(services, files[name], part, download=True)


@router.delete("/{conversion_id}", status_code=204, responses=documented(404))
def delete_conversion(services: InServices, conversion_id: ConversionId, background: BackgroundTasks) -> None:
    """Delete a conversion with its files; one that has not ended is given up."""
    with services.database.write() as session:
        conversions.remove(session, conversion_id)
    background.add_task(tidy, services.whole)
