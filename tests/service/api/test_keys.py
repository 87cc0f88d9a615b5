"""Keys as their holders meet them: made, used, refused, revoked; and what the audit log says of it."""

import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import text

from service.app import create_app
from service.domain.api_keys import ApiKey
from service.settings import Settings
from service.store.database import Database
from service.store.tables import KeyRow
from tests.service.api.conftest import Service, assert_problem, bearer_of
from tests.service.api.files import onnx_bytes, pt2_bytes
from tests.stored_files import stored_files

EVERYTHING = ["read", "submit", "admin"]


def made(service: Service, *scopes: str, **asked: Any) -> dict[str, Any]:
    response = service.http.post("/v1/keys", json={"name": "test", "scopes": list(scopes), **asked})
    assert response.status_code == 201, response.text
    assert response.headers["cache-control"] == "no-store"
    document: dict[str, Any] = response.json()
    return document


def asked_with(service: Service, key: str | None, method: str = "GET", path: str = "/v1/models") -> Response:
    authorization = "" if key is None else f"Bearer {key}"
    return service.http.request(method, path, headers={"Authorization": authorization})


def test_a_key_opens_what_its_scopes_say_and_nothing_else(service: Service):
    read, submit, admin = (made(service, scope)["key"] for scope in EVERYTHING)
    for key, statuses in ((read, (200, 403, 403)), (submit, (403, 422, 403)), (admin, (403, 403, 200))):
        found = (
            asked_with(service, key),
            asked_with(service, key, "POST", "/v1/models?name="),
            asked_with(service, key, path="/v1/audit"),
        )
        assert tuple(each.status_code for each in found) == statuses
    refused = asked_with(service, read, "DELETE", "/v1/models/x")
    assert_problem(refused, 403, "scope-missing", "this needs the scope submit, and key_")


def test_what_is_wrong_with_a_key_is_told_and_the_key_is_not(service: Service):
    key = made(service, "read")
    wrong = {
        "key-missing": None,
        "key-malformed": key["key"][:-1] + ("0" if key["key"][-1] != "0" else "1"),
        "key-unknown": ApiKey.generate().text,
    }
    for code, sent in wrong.items():
        response = asked_with(service, sent)
        assert_problem(response, 401, code)
        assert response.headers["www-authenticate"] == "Bearer"
        assert sent is None or sent not in response.text
    assert_problem(service.http.get("/v1/models", headers={"Authorization": "Basic eDp5"}), 401, "key-missing")


def test_a_secret_of_another_key_does_not_open_this_one(service: Service):
    one, other = made(service, "read"), ApiKey.generate()
    with service.database.write() as session:
        session.get_one(KeyRow, one["id"]).id = other.id
    assert_problem(asked_with(service, other.text), 401, "key-unknown")


def test_a_key_ends_when_it_expires_and_when_it_is_revoked(service: Service):
    short, revoked = made(service, "read", expires_in_days=1), made(service, "read")
    assert [asked_with(service, each["key"]).status_code for each in (short, revoked)] == [200, 200]
    service.set_row(KeyRow, short["id"], expires_at=1.0)
    assert_problem(asked_with(service, short["key"]), 401, "key-expired", short["id"])
    gone = service.http.delete(f"/v1/keys/{revoked['id']}").json()
    assert gone["revoked_at"]
    assert service.http.delete(f"/v1/keys/{revoked['id']}").json() == gone
    assert_problem(asked_with(service, revoked["key"]), 401, "key-revoked")
    assert_problem(service.http.delete("/v1/keys/key_000000000000"), 404, "key-not-found")


def test_only_an_hmac_of_a_key_is_stored_and_nothing_of_it_is_logged(
    service: Service, caplog: pytest.LogCaptureFixture, tmp_path: Any
):
    caplog.set_level(logging.DEBUG)
    key = made(service, *EVERYTHING)["key"]
    asked_with(service, key, "DELETE", "/v1/models/x")
    asked_with(service, key, "POST", "/v1/sweeps")
    secret = key.rpartition("_")[2]
    with service.database.read() as session:
        for table in ("api_keys", "audit_log"):
            for row in session.execute(text(f"select * from {table}")):
                assert secret not in repr(row)
    assert secret not in caplog.text
    listed = service.http.get("/v1/keys").text
    assert secret not in listed
    assert "digest" not in listed


def test_another_pepper_opens_nothing(settings: Settings, database: Database, service: Service):
    key = made(service, "read")["key"]
    app = create_app(
        settings.model_copy(update={"key_pepper": None, "data_dir": settings.data_dir / "other"}), database
    )
    with TestClient(app, base_url="http://127.0.0.1") as http:
        response = http.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
        assert_problem(response, 401, "key-unknown")


def test_where_keys_are_required_the_key_of_the_machine_opens_nothing(settings: Settings, service: Service):
    key = made(service, "read")["key"]
    app = create_app(settings.model_copy(update={"host": "0.0.0.0", "require_keys": True}), service.database)
    with TestClient(app, base_url="http://api.example") as http:
        local = bearer_of(settings)
        assert_problem(http.get("/v1/models", headers=local), 401, "key-unknown")
        assert http.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200


@pytest.mark.parametrize(
    ("allow_pt2", "taken_from"),
    [(None, {"admin"}), (True, {"submit", "admin"}), (False, set())],
    ids=["by scope", "all", "none"],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_where_keys_are_required_archives_that_run_code_want_an_admin(
    settings: Settings, service: Service, host: str, allow_pt2: bool | None, taken_from: set[str]
):
    keys = {"submit": made(service, "submit")["key"], "admin": made(service, "submit", "admin")["key"]}
    asked = settings.model_copy(update={"host": host, "require_keys": True, "allow_pt2": allow_pt2})
    with TestClient(create_app(asked, service.database), base_url="http://127.0.0.1") as http:
        for scope, key in keys.items():
            sent = {"headers": {"Authorization": f"Bearer {key}"}, "content": pt2_bytes()}
            response = http.post("/v1/models?name=net", **sent)
            if scope in taken_from:
                assert response.status_code in {200, 201}, response.text
            else:
                assert_problem(response, 403, "pt2-not-allowed", "scope admin")


def test_where_no_keys_are_required_nobody_needs_one(settings: Settings, service: Service):
    app = create_app(settings.model_copy(update={"host": "0.0.0.0", "require_keys": False}), service.database)
    with TestClient(app, base_url="http://api.example") as http:
        assert http.get("/v1/models").status_code == 200


def test_the_last_use_is_written_once_a_minute(service: Service):
    key = made(service, "read")
    asked_with(service, key["key"])
    first = service.http.get(f"/v1/keys/{key['id']}").json()["last_used_at"]
    assert first
    asked_with(service, key["key"])
    assert service.http.get(f"/v1/keys/{key['id']}").json()["last_used_at"] == first
    service.set_row(KeyRow, key["id"], last_used_at=1.0)
    asked_with(service, key["key"])
    assert service.http.get(f"/v1/keys/{key['id']}").json()["last_used_at"] > "2020"


def test_too_many_requests_are_told_when_to_come_again(settings: Settings, service: Service):
    key = made(service, "read")["key"]
    slow = settings.model_copy(update={"rate_limit_per_second": 0.1, "rate_limit_burst": 2})
    with TestClient(create_app(slow, service.database), base_url="http://127.0.0.1") as http:
        headers = {"Authorization": f"Bearer {key}"}
        assert [http.get("/v1/models", headers=headers).status_code for _ in range(2)] == [200, 200]
        response = http.get("/v1/models", headers=headers)
        assert_problem(response, 429, "too-many-requests")
        assert 5 <= int(response.headers["retry-after"]) <= 10


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes.0"),
        ({"name": "", "scopes": ["read"]}, "name"),
        ({"name": "x", "scopes": ["read"], "project": "nobody"}, "project"),
        ({"name": "x", "scopes": ["read"], "expires_in_days": 0}, "expires_in_days"),
        ({"name": "x", "scopes": ["read"], "secret": "mine"}, "secret"),
    ],
)
def test_a_wrong_request_for_a_key_names_the_field(service: Service, body: dict[str, Any], field: str):
    response = service.http.post("/v1/keys", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


def test_projects_are_made_once_and_listed_with_their_limits(service: Service):
    made = service.http.post("/v1/projects", json={"id": "team-a", "max_open_sweeps": 3})
    assert made.status_code == 201
    assert made.json()["max_open_sweeps"] == 3
    assert made.json()["max_stored_bytes"] == service.settings.max_stored_bytes
    assert_problem(service.http.post("/v1/projects", json={"id": "team-a"}), 409, "project-exists")
    assert [each["id"] for each in service.http.get("/v1/projects").json()["items"]] == ["team-a", "default"]
    assert service.http.post("/v1/projects", json={"id": "Team A"}).status_code == 422


def test_a_quota_that_is_used_up_is_told_with_its_numbers(service: Service):
    service.http.post("/v1/projects", json={"id": "small", "max_stored_bytes": 10})
    key = made(service, "submit", project="small")["key"]
    headers = {"Authorization": f"Bearer {key}"}
    response = service.http.post("/v1/models?name=x", content=onnx_bytes(), headers=headers)
    size = len(onnx_bytes())
    assert_problem(response, 403, "too-much-stored", f"has 0 bytes of files, of 10 that it may have; {size} more")
    assert stored_files(service.blobs.folder) == set()


def test_the_audit_log_has_who_what_and_how_it_ended(service: Service):
    key = made(service, "read", "submit")
    headers = {"Authorization": f"Bearer {key['key']}"}
    uploaded = service.http.post("/v1/models?name=x", content=onnx_bytes(), headers=headers)
    service.http.delete("/v1/models/mdl_000000000000", headers=headers)
    service.http.get("/v1/models", headers=headers)
    service.http.delete(f"/v1/keys/{key['id']}", headers=headers)
    items = service.http.get("/v1/audit").json()["items"]
    told = [(each["key"], each["action"], each["object"], each["outcome"]) for each in items]
    assert told == [
        (key["id"], "DELETE", f"/v1/keys/{key['id']}", 403),
        (key["id"], "delete_model", "/v1/models/mdl_000000000000", 404),
        (key["id"], "upload_model", f"/v1/models/{uploaded.json()['id']}", 201),
        ("local", "create_key", f"/v1/keys/{key['id']}", 201),
    ]
    assert items[2]["request_id"] == uploaded.headers["x-request-id"]
    page = service.http.get("/v1/audit?limit=3").json()
    rest = service.http.get("/v1/audit", params={"limit": 3, "cursor": page["next_cursor"]}).json()
    assert [*page["items"], *rest["items"]] == items


def test_what_fails_inside_stands_in_the_audit_log_too(service: Service, monkeypatch: pytest.MonkeyPatch):
    from service.store import resources

    def broken(*_: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(resources, "remove", broken)
    response = service.http.delete("/v1/models/mdl_000000000000")
    assert response.status_code == 500
    items = service.http.get("/v1/audit").json()["items"]
    assert items[0]["outcome"] == 500
    assert response.headers["x-request-id"] == items[0]["request_id"]
    assert response.headers["x-frame-options"] == "DENY"


def test_every_operation_but_health_says_its_scope_and_its_refusals(service: Service):
    document = service.http.get("/openapi.json", headers={"Authorization": ""}).json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for each in operations.values():
            secured = path not in ("/healthz", "/readyz")
            assert ("security" in each) is secured
            assert ({"401", "403", "429"} <= set(each["responses"])) is secured
