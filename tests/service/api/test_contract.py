"""The OpenAPI document: it is the one that is published, and the application keeps to it whatever it is sent.

Schemathesis makes requests from the document, and from what earlier answers held (ids, cursors). No request may get a
5xx or a status that the document does not name, and what it answers has the shape that the document says. Requests go
to one application with rows of every kind, so that sequences of creations, reads and deletions are among them.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as running
from schemathesis import Case, Response
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.app import create_app
from service.settings import Settings
from service.store.database import Database
from service.store.folder_blobs import FolderBlobStore
from service.store.tables import Table
from tests.service.api.conftest import CountingHints, Service, bearer_of, client_of

PUBLISHED = Path(__file__).parents[3] / "docs" / "openapi.json"
BASE = "http://127.0.0.1:8080"
CASES = int(os.environ.get("CONTRACT_CASES", "40"))
"""Of each operation; `make contract` asks for more."""
KEPT = {"projects", "audit_log"}
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("contract")
    settings = Settings(
        data_dir=folder / "data",
        max_model_bytes=50_000,
        max_dataset_bytes=60_000,
        max_calibration_bytes=40_000,
        rate_limit_per_second=1e6,
        rate_limit_burst=10**6,
    )
    database = Database(settings.resolved_database_url)
    database.migrate()
    blobs, hints = FolderBlobStore(settings.data_dir / "blobs"), CountingHints(settings)
    app = create_app(settings, database, blobs, hints)
    with client_of(app, settings) as http:
        yield Service(http, settings, database, blobs, hints)
    database.close()


def begin_again(service: Service) -> None:
    """One of everything that can be uploaded or asked for, and nothing that earlier requests made."""
    with service.database.write() as session:
        for table in reversed(Table.metadata.sorted_tables):
            if table.name not in KEPT:
                session.execute(table.delete())
    service._made = 0
    service.sweep()
    service.calibration()


@pytest.fixture(scope="module")
def schema(service: Service) -> BaseSchema:
    return schemathesis.openapi.from_dict(service.http.get("/openapi.json").json())


def operations(schema: BaseSchema) -> Iterator[Any]:
    for each in schema.get_all_operations():
        yield each.ok()


def sent(service: Service, case: Case) -> Response:
    """What is answered to it; it has the key."""
    asked = case.as_transport_kwargs(base_url=BASE)
    asked.pop("cookies", None)
    asked["headers"] = {**asked.get("headers", {}), **bearer_of(service.settings)}
    return Response.from_httpx(service.http.request(asked.pop("method"), asked.pop("url"), **asked), verify=True)


def bounded(cases: int) -> running:
    """The same requests in every run."""
    return running(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def test_the_document_is_the_one_that_is_published(schema: BaseSchema) -> None:
    again = "PYTHONPATH=. python -m tests.service.api.test_contract > docs/openapi.json"
    assert json.loads(PUBLISHED.read_text()) == schema.raw_schema, f"where the change is meant: {again}"


def test_no_request_gets_what_the_document_does_not_name(service: Service, schema: BaseSchema) -> None:
    asked = 0
    begin_again(service)
    for operation in operations(schema):

        @bounded(CASES)
        @given(case=operation.as_strategy())
        def check(case: Case) -> None:
            nonlocal asked
            asked += 1
            case.validate_response(sent(service, case), checks=CHECKS)

        check()
    assert asked > CASES * 20


def test_no_sequence_of_requests_gets_what_the_document_does_not_name(service: Service, schema: BaseSchema) -> None:
    asked = 0

    class Sequence(schema.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            begin_again(service)

        def call(self, case: Case, **_: Any) -> Response:
            nonlocal asked
            asked += 1
            return sent(service, case)

        def validate_response(self, response: Response, case: Case, **_: Any) -> None:
            case.validate_response(response, checks=CHECKS)

    Sequence.run(settings=running(bounded(CASES), stateful_step_count=8))
    assert asked > CASES


if __name__ == "__main__":
    print(json.dumps(create_app(Settings()).openapi(), indent=1, sort_keys=True, ensure_ascii=False))
