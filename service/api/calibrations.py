"""Calibration caches of TensorRT: uploaded once for the same bytes, read as a whole within the request."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict

from service.api.deps import Cursor, InServices, Limit, Name, ProjectServices
from service.api.problems import documented
from service.api.tidying import tidy
from service.api.times import instant
from service.api.uploads import BODY, receive
from service.domain.caches import CacheAlgorithm
from service.inspection.calibration_cache import CalibrationCache, inspect_cache
from service.store import resources
from service.store.blobs import BlobWriter
from service.store.pages import read_page
from service.store.tables import CalibrationRow

router = APIRouter(prefix="/v1/calibrations", tags=["calibrations"])

CalibrationId = Annotated[str, Path(max_length=64, description="A calibration cache's id, such as `cal_4q8c1z0rk2vx`.")]


class CalibrationInfo(BaseModel):
    """What a cache holds.

    ``tensorrt_version``: the digits in its first line, `8510` for 8.5.1.0. ``unusable``: how many of its ``entries``
    hold a scale that is not above zero and finite; layers that need one of these stay in floating point.
    """

    algorithm: CacheAlgorithm
    tensorrt_version: str
    entries: int
    unusable: int

    @classmethod
    def of(cls, cache: CalibrationCache) -> "CalibrationInfo":
        """What is told of a cache."""
        unusable = sum(not each.usable for each in cache.entries)
        return cls(
            algorithm=cache.algorithm, tensorrt_version=cache.version, entries=len(cache.entries), unusable=unusable
        )


class CalibrationView(BaseModel):
    """A calibration cache, ready for use: nothing is left to check once it is stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "cal_4q8c1z0rk2vx",
                    "name": "resnet50.cache",
                    "size": 3519,
                    "sha256": "5f0c" * 16,
                    "info": {
                        "algorithm": "EntropyCalibration2",
                        "tensorrt_version": "100300",
                        "entries": 126,
                        "unusable": 0,
                    },
                    "created_at": "2026-11-02T09:30:00Z",
                }
            ]
        }
    )

    id: str
    name: str
    size: int
    sha256: str
    info: CalibrationInfo
    created_at: datetime

    @classmethod
    def of(cls, row: CalibrationRow) -> "CalibrationView":
        """The view of a stored row."""
        return cls(
            id=row.id,
            name=row.name,
            size=row.size,
            sha256=row.sha256,
            info=CalibrationInfo.model_validate(row.info),
            created_at=instant(row.created_at),
        )


class CalibrationList(BaseModel):
    """One page of calibration caches, newest first."""

    items: list[CalibrationView]
    next_cursor: str | None


@router.post(
    "",
    status_code=201,
    openapi_extra=BODY,
    responses={200: {"model": CalibrationView, "description": "These bytes are here already"}, **documented(400, 413)},
)
async def upload_calibration(request: Request, response: Response, services: InServices, name: Name) -> CalibrationView:
    """Send a calibration cache of TensorRT (10 or before) as the body, for a sweep or a conversion to use.

    A problem names the line of the file and what is wrong with it. The same bytes again give the cache that is there.
    """
    async with receive(request, services, limit=services.settings.max_calibration_bytes) as writer:
        row, existed = await run_in_threadpool(_store, services, writer, name)
    if existed:
        response.status_code = 200
    response.headers["Location"] = f"/v1/calibrations/{row.id}"
    return CalibrationView.of(row)


def _store(services: ProjectServices, writer: BlobWriter, name: str) -> tuple[CalibrationRow, bool]:
    info = CalibrationInfo.of(inspect_cache(writer.flush()))
    blob = writer.commit()
    with services.database.write() as session:
        return resources.add_calibration(session, name, blob, info.model_dump(mode="json"))


@router.get("")
def list_calibrations(services: InServices, limit: Limit = 50, cursor: Cursor = None) -> CalibrationList:
    """The calibration caches, newest first."""
    with services.database.read() as session:
        page = read_page(session, CalibrationRow, limit=limit, cursor=cursor)
    return CalibrationList(items=[CalibrationView.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.get("/{calibration_id}", responses=documented(404))
def get_calibration(services: InServices, calibration_id: CalibrationId) -> CalibrationView:
    """One calibration cache, and what it holds."""
    with services.database.read() as session:
        return CalibrationView.of(resources.get(session, CalibrationRow, calibration_id))


@router.delete("/{calibration_id}", status_code=204, responses=documented(404, 409))
def delete_calibration(services: InServices, calibration_id: CalibrationId, background: BackgroundTasks) -> None:
    """Delete a calibration cache that no sweep and no conversion used."""
    with services.database.write() as session:
        resources.remove(session, CalibrationRow, calibration_id)
    background.add_task(tidy, services.whole)
