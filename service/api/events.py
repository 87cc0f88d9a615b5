"""A sweep's states as server-sent events, read from the database: any API of the installation serves any stream."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.api.deps import InServices, ProjectServices, caller_of
from service.api.problems import TooManyRequests, documented
from service.api.sweep_views import SweepView, entity_tag
from service.api.sweeps import SweepId
from service.domain.errors import NotFound
from service.store import progress, sweeps
from service.store.database import AWAY

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])

LOOK_SECONDS = 2.0
LONGEST_SECONDS = 900.0
"""Then the stream ends and is asked for anew, so that a key that was revoked opens nothing for long."""
RETRY_SECONDS = 2.0

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=200,
        description="The `id` of the last event that you have; it does not come again.",
    ),
]


class OpenStreams:
    """How many streams each key has open at this API. Used by the event loop alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def add(self, key_id: str) -> None:
        """Count one more; raises TooManyRequests where that is too much."""
        if self._open[key_id] >= self._most:
            message = f"{key_id} has {self._most} event streams open, and may have no more; close one, or poll"
            raise TooManyRequests(message, seconds=RETRY_SECONDS)
        self._open[key_id] += 1

    def remove(self, key_id: str) -> None:
        """Count one less."""
        self._open[key_id] -= 1
        if self._open[key_id] <= 0:
            del self._open[key_id]


async def _counted(request: Request, services: InServices, sweep_id: SweepId) -> AsyncIterator[None]:
    """Whatever is wrong is answered before the stream begins."""
    caller, streams = caller_of(request), request.app.state.streams
    assert isinstance(streams, OpenStreams)
    await run_in_threadpool(_must_exist, services, sweep_id)
    streams.add(caller.key_id)
    try:
        yield
    finally:
        streams.remove(caller.key_id)


@router.get(
    "/{sweep_id}/events",
    response_class=EventSourceResponse,
    responses=documented(404),
    dependencies=[Depends(_counted)],
)
async def sweep_events(
    services: InServices, sweep_id: SweepId, last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """The sweep whenever it has changed, as an event `sweep` whose data is the document of `GET /v1/sweeps/{id}`.

    The last event has a state that ends the sweep; the stream ends with it. Each event is the whole document, so that
    nothing is lost where events were missed.
    """
    mark, known, deadline = None, last_event_id, time.monotonic() + LONGEST_SECONDS
    # a sweep that was deleted, or a database that is away: whoever asks again is told
    with suppress(NotFound, *AWAY):
        while time.monotonic() < deadline:
            before, mark = mark, await run_in_threadpool(_mark, services, sweep_id)
            if mark != before:
                view, tag = await run_in_threadpool(_look, services, sweep_id)
                if tag != known or view.state.terminal:
                    known = tag
                    yield ServerSentEvent(data=view, event="sweep", id=tag, retry=int(1000 * RETRY_SECONDS))
                if view.state.terminal:
                    return
            await asyncio.sleep(LOOK_SECONDS)


def _must_exist(services: ProjectServices, sweep_id: str) -> None:
    with services.database.read() as session:
        sweeps.get(session, sweep_id)


def _mark(services: ProjectServices, sweep_id: str) -> tuple[int, int, float]:
    with services.database.read() as session:
        found = progress.mark(session, sweep_id)
    if found is None:
        raise NotFound(f"there is no sweep {sweep_id!r}", code="sweep-not-found")
    return found


def _look(services: ProjectServices, sweep_id: str) -> tuple[SweepView, str]:
    """The sweep, and what its state is known by; raises NotFound."""
    with services.database.read() as session:
        row = sweeps.get(session, sweep_id)
        view = SweepView.of(row, progress.of_sweep(session, row))
    return view, entity_tag(row.revision, view).removeprefix("W/").strip('"')
