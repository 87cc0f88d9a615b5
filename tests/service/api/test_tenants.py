"""Another project's key finds nothing of a project, on any route that the application has.

The routes are those of the application itself. What a new route needs beyond what is known here (a parameter of its
path, a query, a body) has to be told here; until then the test fails, so that no route is forgotten.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from httpx import Response

from service.api import events
from service.api.access import PUBLIC, needed_scope
from service.domain.api_keys import KeyScope
from service.domain.selections import Selected, SelectionQuestion
from service.domain.states import ConversionState, SweepState
from service.domain.tenant import Tenant
from service.store import conversions, keys, projects, selections
from service.store.database import Database
from service.store.keys import NewKey, Pepper
from service.store.tables import ArtifactRow, ConversionFileRow, ConversionRow, ProjectRow, SweepRow
from tests.service.api.conftest import Service
from tests.service.api.files import npz_bytes, onnx_bytes

MADE_UP = {
    "model_id": "mdl_000000000000",
    "dataset_id": "dat_000000000000",
    "calibration_id": "cal_000000000000",
    "sweep_id": "swp_000000000000",
    "selection_id": "sel_000000000000",
    "conversion_id": "cnv_000000000000",
}
CACHE = b"TRT-100300-EntropyCalibration2\nx: 3caa54fc\n"
QUESTION: dict[str, Any] = {"budget": {"max_drop": 0.1}}
ANSWER: dict[str, Any] = {
    "state": "predicted",
    "status": "not_predictable",
    "algorithm": "optimal",
    "cost": 0.0,
    "max_drop": 0.1,
    **dict.fromkeys(("fallback", "fallback_names", "notes", "curve"), ()),
    **dict.fromkeys(("predicted", "measured", "upper_within", "decision")),
    "explanation": "a test's own",
}
FILES = ("fallback_layers.json", "layers.csv", "report.html", "report.json")


@dataclass(frozen=True)
class Route:
    """One method at one path of the application."""

    method: str
    path: str

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Tenants:
    """Two projects: the first has one of everything, the second has keys."""

    service: Service
    first: TestClient
    second: TestClient
    ids: dict[str, str]

    def ask(self, client: TestClient, route: Route, ids: dict[str, str]) -> Response:
        """The request that a route needs, about these ids."""
        filled = route.path.format(**{name: ids[name] for name in route.parameters})
        return client.request(route.method, filled, **self.needs(route, ids))

    def needs(self, route: Route, ids: dict[str, str]) -> dict[str, Any]:
        """The query and the body of a request."""
        match str(route):
            case "GET /v1/sweeps/compare":
                return {"params": {"ids": f"{ids['sweep_id']},{ids['second_sweep_id']}"}}
            case "POST /v1/models":
                return {"params": {"name": "x"}, "content": onnx_bytes(1)}
            case "POST /v1/datasets":
                return {"params": {"name": "x"}, "content": npz_bytes(2)}
            case "POST /v1/calibrations":
                return {"params": {"name": "x"}, "content": CACHE}
            case "POST /v1/sweeps":
                return {"json": {"model": ids["model_id"], "dataset": ids["dataset_id"]}}
            case "POST /v1/conversions":
                return {"json": {"model": ids["model_id"], "calibration": ids["calibration_id"]}}
            case "POST /v1/sweeps/{sweep_id}/selections":
                return {"json": QUESTION}
        return {}


def routes_of(app: Any) -> list[Route]:
    """Every route that needs a key, the deepest first, so that what is deleted is not missed by another route."""
    described = app.openapi()["paths"]
    found = {Route(method.upper(), path) for path, operations in described.items() for method in operations}
    # what is left out of the description is a route all the same
    found |= {Route(method, each.path) for each in every_route(app.routes) for method in each.methods}
    private = [each for each in found if each.path not in PUBLIC]
    return sorted(private, key=lambda each: (each.method == "DELETE", -each.path.count("/"), str(each)))


def every_route(routes: Any) -> Iterator[APIRoute]:
    for each in routes:
        if isinstance(each, APIRoute):
            yield each
        yield from every_route(getattr(each, "routes", None) or [])


def key_of(service: Service, project: str, *scopes: KeyScope) -> TestClient:
    with service.database.write() as session:
        _, key = keys.create(session, NewKey("test", scopes, project), Pepper.of(service.settings))
    headers = {"Authorization": f"Bearer {key.text}"}
    return TestClient(
        service.http.app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False, headers=headers
    )


@pytest.fixture
def tenants(service: Service) -> Tenants:
    with service.database.write() as session:
        for name in ("first", "second"):
            projects.create(session, ProjectRow(id=name))
    first = key_of(service, "first", KeyScope.READ, KeyScope.SUBMIT)
    second = key_of(service, "second", KeyScope.READ, KeyScope.SUBMIT)
    at = Tenants(service, first, second, {})
    for noun in ("model", "dataset", "calibration"):
        at.ids[f"{noun}_id"] = at.ask(first, Route("POST", f"/v1/{noun}s"), {}).json()["id"]
    for name in ("sweep_id", "second_sweep_id"):
        at.ids[name] = at.ask(first, Route("POST", "/v1/sweeps"), at.ids).json()["id"]
    at.ids["conversion_id"] = at.ask(first, Route("POST", "/v1/conversions"), at.ids).json()["id"]
    at.ids["name"] = "layers.csv"
    blob = service.blobs.put(b"content")
    with service.database.write() as session:
        session.get_one(SweepRow, at.ids["sweep_id"]).state = SweepState.SUCCEEDED
        session.get_one(ConversionRow, at.ids["conversion_id"]).state = ConversionState.SUCCEEDED
        for name in FILES:
            file = {"name": name, "media_type": "text/plain", "sha256": blob.sha256, "size": blob.size}
            session.add(ArtifactRow(sweep_id=at.ids["sweep_id"], **file))
            session.add(ConversionFileRow(conversion_id=at.ids["conversion_id"], **file))
    with service.database.write(Tenant("first", service.settings.limits)) as session:
        question, answer = SelectionQuestion.model_validate(QUESTION), Selected.model_validate(ANSWER)
        at.ids["selection_id"] = selections.add(session, at.ids["sweep_id"], question, answer).id
    return at


def everything(database: Database) -> list[tuple[str, str]]:
    """Every row of the first project with its state."""
    with database.read() as session:
        rows = [*session.query(SweepRow), *session.query(ConversionRow)]
        files = [*conversions.files(session, rows[-1].id)]
    return sorted([(each.id, each.state) for each in rows if each.project_id == "first"]) + [
        (each.name, each.sha256) for each in files
    ]


def test_on_every_route_another_projects_ids_are_as_good_as_made_up(tenants: Tenants) -> None:
    before = everything(tenants.service.database)
    asked = 0
    for route in routes_of(tenants.service.http.app):
        if needed_scope(route.method, route.path) is KeyScope.ADMIN:
            filled = route.path.format(**dict.fromkeys(route.parameters, "key_000000000000"))
            assert tenants.second.request(route.method, filled).status_code == 403, route
            continue
        made_up = {**tenants.ids, **MADE_UP, "second_sweep_id": "swp_111111111111"}
        found = tenants.ask(tenants.second, route, tenants.ids)
        expected = tenants.ask(tenants.second, route, made_up)
        asked += 1
        if route.parameters or route.path == "/v1/sweeps/compare":
            assert found.status_code == 404, f"{route}: {found.text}"
        elif route.method == "GET":
            assert found.json() == {"items": [], "next_cursor": None}, route
        elif route.path in ("/v1/models", "/v1/datasets", "/v1/calibrations"):
            assert found.status_code == 201, f"{route} tells that another project has these bytes"
            assert found.json()["id"] not in tenants.ids.values()
            tenants.second.delete(found.headers["location"]).raise_for_status()
            continue
        else:
            assert found.status_code == 422, f"{route}: {found.text}"
        assert masked(found.text, tenants.ids) == masked(expected.text, made_up), route
    assert asked >= 29
    assert everything(tenants.service.database) == before


def masked(text: str, ids: dict[str, str]) -> str:
    for each in ids.values():
        text = text.replace(each, "ID")
    return text


def test_on_the_same_routes_the_owner_finds_what_is_there(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the 404 of the others would mean nothing."""
    monkeypatch.setattr(events, "LONGEST_SECONDS", 0.0)  # a stream of a sweep that goes on would never end
    for route in routes_of(tenants.service.http.app):
        if needed_scope(route.method, route.path) is not KeyScope.ADMIN:
            response = tenants.ask(tenants.first, route, tenants.ids)
            assert response.status_code < 500, f"{route}: {response.text}"
            assert response.status_code != 404, f"{route}: {response.text}"


def test_the_projects_do_not_share_idempotency_keys(tenants: Tenants, service: Service) -> None:
    made = []
    for client in (tenants.first, tenants.second):
        ids = {
            f"{noun}_id": tenants.ask(client, Route("POST", f"/v1/{noun}s"), {}).json()["id"]
            for noun in ("model", "dataset")
        }
        body = {"model": ids["model_id"], "dataset": ids["dataset_id"]}
        made.append(
            [client.post("/v1/sweeps", json=body, headers={"Idempotency-Key": "k"}).json()["id"] for _ in range(2)]
        )
    assert made[0][0] == made[0][1] != made[1][0] == made[1][1]


def test_a_file_that_two_projects_have_stays_until_neither_has_it(tenants: Tenants, service: Service) -> None:
    from service.store.leftovers import remove_leftovers

    route = Route("POST", "/v1/datasets")
    theirs = tenants.ask(tenants.second, route, {})
    assert tenants.second.delete(theirs.headers["location"]).status_code == 204
    remove_leftovers(service.database, service.blobs, older_than=-1)
    with tenants.service.blobs.local(theirs.json()["sha256"]) as path:
        assert path.read_bytes() == npz_bytes(2)


def test_whatever_a_project_deletes_the_old_files_of_another_stay(tenants: Tenants) -> None:
    """The files that nothing names are looked for at each deletion, and other projects' rows name files too."""
    theirs = tenants.second.post("/v1/models?name=x", content=onnx_bytes(7)).json()["sha256"]
    blobs = tenants.service.blobs
    os.utime(blobs.path(theirs), (0, 0))
    asked = [each for each in routes_of(tenants.service.http.app) if each.method == "DELETE" and "key" not in each.path]
    deleted = [str(each) for each in asked if tenants.ask(tenants.first, each, tenants.ids).status_code == 204]
    assert "DELETE /v1/sweeps/{sweep_id}/selections/{selection_id}" in deleted
    assert len(deleted) >= 3
    assert blobs.read(theirs) == onnx_bytes(7)
