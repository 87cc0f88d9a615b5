"""Whether the service lives, and whether it can work."""

from typing import Literal

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from service.api.deps import InInstallation, Services
from service.api.problems import documented
from service.domain.errors import Unavailable
from service.store.tables import SweepRow

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """``degraded``: requests are answered and work goes on, only later than it could."""

    status: Literal["ok", "degraded"]
    database: Literal["ok"] = "ok"
    files: Literal["ok"] = "ok"
    broker: Literal["ok", "unavailable"]


@router.get("/healthz")
async def get_health() -> Health:
    """Answers as long as the process does."""
    return Health()


@router.get("/readyz", responses=documented(503))
async def get_readiness(services: InInstallation) -> Readiness:
    """503 while the database or the files are away. Without the broker work starts late: 200, degraded."""
    await run_in_threadpool(_ask_database, services)
    await run_in_threadpool(services.blobs.check)
    answers = await run_in_threadpool(services.hints.answers)
    return Readiness(status="ok" if answers else "degraded", broker="ok" if answers else "unavailable")


def _ask_database(services: Services) -> None:
    try:
        with services.database.read() as session:
            session.execute(select(SweepRow.id).limit(1))
    except SQLAlchemyError:
        raise Unavailable(
            "the database does not answer, or its schema is not there", code="database-unavailable"
        ) from None
