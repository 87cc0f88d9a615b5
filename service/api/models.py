"""Models: uploaded once for the same bytes, then checked by a worker."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from service.api.access import Caller, may_send_pt2
from service.api.deps import Cursor, InServices, Limit, Name, ProjectServices, caller_of
from service.api.problems import Forbidden, documented
from service.api.tidying import tidy
from service.api.times import instant
from service.api.uploads import BODY, receive
from service.domain.states import ResourceState
from service.inspection.model_files import ModelFormat, inspect_model
from service.settings import Settings
from service.store import resources
from service.store.blobs import BlobWriter
from service.store.pages import read_page
from service.store.tables import ModelRow

router = APIRouter(prefix="/v1/models", tags=["models"])

ModelId = Annotated[str, Path(max_length=64, description="A model's id, such as `mdl_4q8c1z0rk2vx`.")]
WHY_NO_PT2 = (
    "torch.export archives (.pt2) are not taken from this caller: opening one can run code that it carries. "
    "Send the model as ONNX, use a key with the scope admin where keys are required, or ask the operator to set "
    "QUANTSIEVE_ALLOW_PT2=true"
)


class ModelView(BaseModel):
    """A model. ``problem`` says why it was rejected; ``info`` is what the check found (inputs, outputs, layers, …)."""

    id: str
    name: str
    format: str
    size: int
    sha256: str
    state: ResourceState
    problem: str | None
    info: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, row: ModelRow) -> "ModelView":
        """The view of a stored row."""
        return cls(
            id=row.id,
            name=row.name,
            format=row.format,
            size=row.size,
            sha256=row.sha256,
            state=ResourceState(row.state),
            problem=row.problem,
            info=row.info,
            created_at=instant(row.created_at),
        )


class ModelList(BaseModel):
    """One page of models, newest first."""

    items: list[ModelView]
    next_cursor: str | None


@router.post(
    "",
    status_code=201,
    openapi_extra=BODY,
    responses={200: {"model": ModelView, "description": "These bytes are here already"}, **documented(400, 403, 413)},
)
async def upload_model(request: Request, response: Response, services: InServices, name: Name) -> ModelView:
    """Send an ONNX file, a zip of one with its external data, or a torch.export archive as the body.

    The same bytes again give the model that is there.
    """
    async with receive(request, services, limit=services.settings.max_model_bytes) as writer:
        row, queue = await run_in_threadpool(_store, services, caller_of(request), writer, name)
    if queue is None:
        response.status_code = 200
    else:
        await run_in_threadpool(services.hints.publish, queue)
    response.headers["Location"] = f"/v1/models/{row.id}"
    return ModelView.of(row)


def _refuse_unless_permitted(settings: Settings, caller: Caller, model_format: ModelFormat) -> None:
    """Who may send which format: the one place where that is decided."""
    if model_format is ModelFormat.PT2 and not may_send_pt2(settings, caller):
        raise Forbidden(WHY_NO_PT2, code="pt2-not-allowed")


def _store(services: ProjectServices, caller: Caller, writer: BlobWriter, name: str) -> tuple[ModelRow, str | None]:
    model_format = inspect_model(writer.flush())
    _refuse_unless_permitted(services.settings, caller, model_format)
    blob = writer.commit()
    with services.database.write() as session:
        return resources.add_model(session, resources.NewFile(name, blob, model_format.value))


@router.get("")
def list_models(services: InServices, limit: Limit = 50, cursor: Cursor = None) -> ModelList:
    """The models, newest first."""
    with services.database.read() as session:
        page = read_page(session, ModelRow, limit=limit, cursor=cursor)
    return ModelList(items=[ModelView.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.get("/{model_id}", responses=documented(404))
def get_model(services: InServices, model_id: ModelId) -> ModelView:
    """One model: its state, why it was rejected if it was, and what is known of it."""
    with services.database.read() as session:
        return ModelView.of(resources.get(session, ModelRow, model_id))


@router.delete("/{model_id}", status_code=204, responses=documented(404, 409))
def delete_model(services: InServices, model_id: ModelId, background: BackgroundTasks) -> None:
    """Delete a model that no sweep and no conversion used."""
    with services.database.write() as session:
        resources.remove(session, ModelRow, model_id)
    background.add_task(tidy, services.whole)
