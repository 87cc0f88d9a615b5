"""Evaluation sets: uploaded once for the same bytes and preprocessing, then checked by a worker."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError

from service.api.deps import Cursor, InServices, Limit, Name, ProjectServices
from service.api.problems import documented
from service.api.tidying import tidy
from service.api.times import instant
from service.api.uploads import BODY, receive
from service.broker import DATA_QUEUE
from service.domain.errors import InvalidInput
from service.domain.settings import Preprocessing
from service.domain.states import ResourceState
from service.inspection.dataset_files import DatasetSketch, inspect_dataset
from service.inspection.formats import DatasetFormat
from service.store import resources
from service.store.blobs import BlobWriter
from service.store.pages import read_page
from service.store.tables import DatasetRow

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

DatasetId = Annotated[str, Path(max_length=64, description="An evaluation set's id, such as `dat_4q8c1z0rk2vx`.")]
PreprocessingText = Annotated[
    str | None,
    Query(
        alias="preprocessing",
        max_length=4000,
        description='JSON: how stored samples become model inputs, such as `{"layout": "NHWC", "scale": 0.00392157}`.',
    ),
]


class DatasetView(BaseModel):
    """An evaluation set. ``info`` is what is known of it: samples, shapes, dtypes, labels, class counts."""

    id: str
    name: str
    format: str
    size: int
    sha256: str
    preprocessing: Preprocessing
    state: ResourceState
    problem: str | None
    info: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, row: DatasetRow) -> "DatasetView":
        """The view of a stored row."""
        return cls(
            id=row.id,
            name=row.name,
            format=row.format,
            size=row.size,
            sha256=row.sha256,
            preprocessing=Preprocessing.model_validate(row.preprocessing),
            state=ResourceState(row.state),
            problem=row.problem,
            info=row.info,
            created_at=instant(row.created_at),
        )


class DatasetList(BaseModel):
    """One page of evaluation sets, newest first."""

    items: list[DatasetView]
    next_cursor: str | None


@router.post(
    "",
    status_code=201,
    openapi_extra=BODY,
    responses={
        200: {"model": DatasetView, "description": "These bytes with this preprocessing are here already"},
        **documented(400, 413),
    },
)
async def upload_dataset(
    request: Request, response: Response, services: InServices, name: Name, preprocessing: PreprocessingText = None
) -> DatasetView:
    """Send an .npz, .safetensors, Parquet or zip file as the body."""
    parsed = _preprocessing(preprocessing)
    async with receive(request, services, limit=services.settings.max_dataset_bytes) as writer:
        row, queue = await run_in_threadpool(_store, services, writer, name, parsed)
    if queue is None:
        response.status_code = 200
    else:
        await run_in_threadpool(services.hints.publish, queue)
    response.headers["Location"] = f"/v1/datasets/{row.id}"
    return DatasetView.of(row)


def _preprocessing(text: str | None) -> Preprocessing:
    if text is None:
        return Preprocessing()
    try:
        return Preprocessing.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(["preprocessing", *map(str, first["loc"])])
        known = ", ".join(Preprocessing.model_fields)
        message = f"{field}: {first['msg']}; preprocessing is a JSON object with any of {known}"
        raise InvalidInput(message, field=field, code="bad-preprocessing") from None


def _store(
    services: ProjectServices, writer: BlobWriter, name: str, preprocessing: Preprocessing
) -> tuple[DatasetRow, str | None]:
    sketch = inspect_dataset(writer.flush())
    blob = writer.commit()
    file = resources.NewFile(name, blob, sketch.format.value, info=_info(sketch))
    with services.database.write() as session:
        return resources.add_dataset(session, file, preprocessing, queue=DATA_QUEUE)


def _info(sketch: DatasetSketch) -> dict[str, Any]:
    info = sketch.model_dump(mode="json", exclude={"format"}, exclude_none=True)
    if sketch.format is not DatasetFormat.PARQUET:  # what a Parquet file holds is for a worker to see
        info["has_labels"] = sketch.labels is not None or sketch.class_counts is not None
    return info


@router.get("")
def list_datasets(services: InServices, limit: Limit = 50, cursor: Cursor = None) -> DatasetList:
    """The evaluation sets, newest first."""
    with services.database.read() as session:
        page = read_page(session, DatasetRow, limit=limit, cursor=cursor)
    return DatasetList(items=[DatasetView.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.get("/{dataset_id}", responses=documented(404))
def get_dataset(services: InServices, dataset_id: DatasetId) -> DatasetView:
    """One evaluation set: its state, why it was rejected if it was, and what is known of it."""
    with services.database.read() as session:
        return DatasetView.of(resources.get(session, DatasetRow, dataset_id))


@router.delete("/{dataset_id}", status_code=204, responses=documented(404, 409))
def delete_dataset(services: InServices, dataset_id: DatasetId, background: BackgroundTasks) -> None:
    """Delete an evaluation set that no sweep used."""
    with services.database.write() as session:
        resources.remove(session, DatasetRow, dataset_id)
    background.add_task(tidy, services.whole)
