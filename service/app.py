"""The REST API as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from starlette.middleware.errors import ServerErrorMiddleware

from service import __version__
from service.api import (
    audit,
    calibrations,
    comparisons,
    conversions,
    datasets,
    events,
    health,
    keys,
    metrics,
    models,
    problems,
    projects,
    results,
    selections,
    sweeps,
    workers,
)
from service.api.access import needed_scope
from service.api.authentication import Authenticator
from service.api.body_limit import BodyLimit
from service.api.deps import Publisher, Services
from service.api.events import OpenStreams
from service.api.gate import Gate
from service.api.guard import Guard
from service.api.tidying import announce, tidy
from service.broker import Hints
from service.settings import Settings
from service.store.blobs import BlobStore
from service.store.database import Database
from service.store.open_blobs import open_blobs

DESCRIPTION = (
    "Finds the layers of a network that cannot stand INT8, and proves which few to keep in higher precision. "
    "Every error is a problem document (RFC 9457) whose `type` is stable."
)
KEY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key. Beside it stands the scope that an operation needs: read, submit or admin.",
}
ROUTERS: tuple[APIRouter, ...] = (
    models.router,
    datasets.router,
    calibrations.router,
    comparisons.router,  # before the sweeps, whose ids its path would be taken for
    sweeps.router,
    events.router,
    results.router,
    selections.router,
    conversions.router,
    workers.router,
    projects.router,
    keys.router,
    audit.router,
    health.router,
    metrics.router,
)


class Api(FastAPI):
    """FastAPI, with problems, keys and their scopes in its OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        document = super().openapi()
        document["components"]["schemas"].update(problems.schemas())
        document["components"]["securitySchemes"] = {"key": KEY_SCHEME}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                scope = needed_scope(method.upper(), path)
                if scope is not None:
                    operation["security"] = [{"key": [scope.value]}]
                    refusals = problems.documented(401, 403, 429).items()
                    operation["responses"] |= {str(status): content for status, content in refusals}
        return document


def create_app(
    settings: Settings,
    database: Database | None = None,
    blobs: BlobStore | None = None,
    hints: Publisher | None = None,
) -> FastAPI:
    """The application. What is not given is made from the settings; the schema must be there already.

    Raises InvalidInput where strangers could reach it and the settings do not say whether keys are required.
    """
    services = Services(
        settings=settings,
        database=database or Database(settings.resolved_database_url),
        blobs=blobs or open_blobs(settings),
        hints=hints or Hints(settings),
    )
    authenticator = Authenticator(settings, services.database)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(announce, services)
        await run_in_threadpool(tidy, services)
        yield
        if database is None:
            services.database.close()

    app = Api(
        title="quantsieve",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        docs_url=None,
        redoc_url=None,
        responses=problems.documented(422, 500),
    )
    app.state.services = services
    app.state.streams = OpenStreams(settings.max_event_streams)
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app)
    uploads = (models.router, datasets.router, calibrations.router)
    app.add_middleware(BodyLimit, uploads=frozenset(each.prefix for each in uploads))
    app.add_middleware(ServerErrorMiddleware, handler=problems.internal)  # or its answer would bypass Gate and Guard
    app.add_middleware(Gate, services=services, authenticator=authenticator)
    app.add_middleware(Guard, host=settings.host)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
