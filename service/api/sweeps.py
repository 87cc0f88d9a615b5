"""Sweeps: asked for, watched, cancelled, deleted."""

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Header, Path, Response

from service.api.admission import admit
from service.api.deps import Cursor, IdempotencyKey, InServices, Limit
from service.api.problems import documented
from service.api.sweep_views import SweepList, SweepView, entity_tag, tag_matches
from service.api.tidying import tidy
from service.domain.settings import SweepSettings
from service.store import progress, sweeps, workers
from service.store.pages import read_page
from service.store.sweeps import NewSweep
from service.store.tables import SweepRow

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])

SweepId = Annotated[str, Path(max_length=64, description="A sweep's id, such as `swp_4q8c1z0rk2vx`.")]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="The ETag of what you have.")]
POLL_SECONDS = "2"


@router.post("", status_code=202, responses=documented(400, 413, 503))
def create_sweep(
    settings: SweepSettings, response: Response, services: InServices, idempotency_key: IdempotencyKey = None
) -> SweepView:
    """Ask for a sweep. It waits while its model or evaluation set is still being checked."""
    with services.database.write() as session:
        row = sweeps.by_idempotency_key(session, idempotency_key, settings) if idempotency_key else None
        queue = None
        if row is None:
            admitted = admit(session, settings, workers.live(session))
            new = NewSweep(settings, admitted.subjects, admitted.backend, admitted.warnings, idempotency_key)
            row, queue = sweeps.create(session, new)
        view = SweepView.of(row, progress.of_sweep(session, row))
    if queue is not None:
        services.hints.publish(queue)
    response.headers.update({"Location": view.links.self, "Retry-After": POLL_SECONDS})
    return view


@router.get("")
def list_sweeps(services: InServices, limit: Limit = 50, cursor: Cursor = None) -> SweepList:
    """The sweeps, newest first."""
    with services.database.read() as session:
        page = read_page(session, SweepRow, limit=limit, cursor=cursor)
        items = [SweepView.of(row, progress.of_sweep(session, row)) for row in page.items]
    return SweepList(items=items, next_cursor=page.next_cursor)


@router.get("/{sweep_id}", response_model=SweepView, responses={304: {"description": "Not changed"}, **documented(404)})
def get_sweep(
    services: InServices, response: Response, sweep_id: SweepId, if_none_match: IfNoneMatch = None
) -> SweepView | Response:
    """Where a sweep stands: always 200, however it goes."""
    with services.database.read() as session:
        row = sweeps.get(session, sweep_id)
        view = SweepView.of(row, progress.of_sweep(session, row))
    headers = {"ETag": entity_tag(row.revision, view), "Cache-Control": "no-cache"}
    if not view.state.terminal:
        headers["Retry-After"] = POLL_SECONDS
    if tag_matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return view


@router.post("/{sweep_id}/cancel", status_code=202, responses=documented(404))
def cancel_sweep(services: InServices, sweep_id: SweepId) -> SweepView:
    """Cancel a sweep: at once, or as soon as its workers look. What has ended stays as it is."""
    with services.database.write() as session:
        row = sweeps.cancel(session, sweep_id)
        return SweepView.of(row, progress.of_sweep(session, row))


@router.delete("/{sweep_id}", status_code=204, responses=documented(404, 409))
def delete_sweep(services: InServices, sweep_id: SweepId, background: BackgroundTasks) -> None:
    """Delete an ended sweep with its results and files."""
    with services.database.write() as session:
        sweeps.remove(session, sweep_id)
    background.add_task(tidy, services.whole)
