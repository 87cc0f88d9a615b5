"""Event streams, over a real connection: what comes, when they end, and how many there may be."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from service.api import events
from service.app import create_app
from service.client import ApiProblem, Client
from service.domain.states import SweepState
from service.settings import Settings
from service.store import sweeps
from service.store.tables import SweepRow
from tests.service.api.conftest import CountingHints, Service, assert_problem, bearer_of
from tests.service.api.server import serving


@dataclass
class Served:
    """The service behind a real port."""

    service: Service
    http: httpx.Client
    client: Client


@pytest.fixture
def served(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(events, "LOOK_SECONDS", 0.05)
    headers = bearer_of(service.settings)
    key = headers["Authorization"].removeprefix("Bearer ")
    with serving(service.http.app) as port:
        url = f"http://127.0.0.1:{port}"
        with (
            httpx.Client(base_url=url, headers=headers, timeout=10) as http,
            Client(url, key=key, timeout=10) as client,
        ):
            yield Served(service, http, client)


def lines_of(response: httpx.Response) -> list[dict[str, str]]:
    """The fields of each event."""
    blocks = response.text.strip().split("\n\n")
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


def cancel(service: Service, sweep_id: str) -> None:
    with service.database.write() as session:
        sweeps.cancel(session, sweep_id)


def test_every_change_comes_once_and_the_last_one_ends_the_stream(served: Served) -> None:
    sweep_id = served.service.sweep().json()["id"]
    seen = []
    for sweep in served.client.events(sweep_id):
        seen.append((sweep["state"], sweep["phase"]))
        if len(seen) == 1:
            served.service.set_row(SweepRow, sweep_id, state=SweepState.RUNNING, phase="measure")
        elif len(seen) == 2:
            cancel(served.service, sweep_id)
    assert seen == [("queued", "prepare"), ("running", "measure"), ("cancelled", "measure")]


def test_an_event_is_the_document_of_the_sweep(served: Served) -> None:
    sweep_id = served.service.sweep().json()["id"]
    cancel(served.service, sweep_id)
    response = served.http.get(f"/v1/sweeps/{sweep_id}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    (event,) = lines_of(response)
    assert event["event"] == "sweep"
    assert httpx.Response(200, text=event["data"]).json() == served.http.get(f"/v1/sweeps/{sweep_id}").json()


def test_who_comes_again_gets_only_what_is_new(served: Served) -> None:
    sweep_id = served.service.sweep().json()["id"]
    url = f"/v1/sweeps/{sweep_id}/events"
    with served.http.stream("GET", url) as first:
        lines = first.iter_lines()
        last = next(line.removeprefix("id: ") for line in lines if line.startswith("id: "))
    threading.Timer(0.3, cancel, (served.service, sweep_id)).start()
    (event,) = lines_of(served.http.get(url, headers={"Last-Event-ID": last}))
    assert '"state":"cancelled"' in event["data"]
    assert event["id"] != last


def test_the_client_goes_on_after_a_stream_that_ended_early(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LONGEST_SECONDS", 0.2)
    sweep_id = served.service.sweep().json()["id"]
    threading.Timer(0.7, cancel, (served.service, sweep_id)).start()
    assert [each["state"] for each in served.client.events(sweep_id)] == ["queued", "cancelled"]


def test_silence_is_broken_by_comments(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.1)
    sweep_id = served.service.sweep().json()["id"]
    with served.http.stream("GET", f"/v1/sweeps/{sweep_id}/events") as response:
        assert next(line for line in response.iter_lines() if line.startswith(":")) == ": ping"


def test_a_sweep_that_is_deleted_ends_its_stream(served: Served) -> None:
    sweep_id = served.service.sweep().json()["id"]
    with served.http.stream("GET", f"/v1/sweeps/{sweep_id}/events") as response:
        lines = response.iter_lines()
        next(lines)
        with served.service.database.write() as session:
            session.delete(session.get_one(SweepRow, sweep_id))
        list(lines)
    assert_problem(served.http.get(f"/v1/sweeps/{sweep_id}/events"), 404, "sweep-not-found")
    with pytest.raises(ApiProblem, match="there is no sweep"):
        next(served.client.events(sweep_id))


def test_a_key_has_so_many_streams_and_gets_another_once_one_is_closed(served: Served, settings: Settings) -> None:
    service = served.service
    sweep_id = service.sweep().json()["id"]
    few = settings.model_copy(update={"max_event_streams": 2})
    app = create_app(few, service.database, service.blobs, CountingHints(few))
    url = f"/v1/sweeps/{sweep_id}/events"
    with serving(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=bearer_of(few)) as http:
        with http.stream("GET", url) as first, http.stream("GET", url) as second:
            assert {first.status_code, second.status_code} == {200}
            refused = http.get(url)
            assert_problem(refused, 429, "too-many-requests", "has 2 event streams open")
            assert refused.headers["retry-after"] == "2"
        deadline = time.monotonic() + 10
        while app.state.streams._open and time.monotonic() < deadline:
            time.sleep(0.05)
        with http.stream("GET", url) as again:
            assert again.status_code == 200
