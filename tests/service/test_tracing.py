"""Traces through a real request and real units, seen by the SDK's own exporter."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service import tracing
from service.app import create_app
from service.domain.errors import InvalidInput
from service.store.tables import UnitRow
from tests.service.api.conftest import client_of
from tests.workers.installation import Installation, npz_bytes, onnx_bytes
from workers.tasks import work

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def exported() -> Iterator[InMemorySpanExporter]:
    """The provider of a process is set once and for all; after these tests it exports nothing."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def spans(exported: InMemorySpanExporter) -> InMemorySpanExporter:
    exported.clear()
    return exported


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    made = Installation.at(tmp_path / "data", max_attempts=3)
    made.context.database.migrate()
    yield made
    made.context.database.close()


@pytest.fixture
def http(here: Installation) -> Iterator[TestClient]:
    context = here.context
    app = create_app(context.settings, context.database, context.blobs, context.hints)
    with client_of(app, context.settings) as client:
        yield client


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [each for each in spans.get_finished_spans() if each.name == name]
    return found


def trace_of(span: ReadableSpan) -> str:
    return f"{span.get_span_context().trace_id:032x}"


def is_under(spans: InMemorySpanExporter, child: ReadableSpan, top: ReadableSpan) -> bool:
    """Whether a span is below another, with whatever spans the web framework has between them."""
    by_id = {each.get_span_context().span_id: each for each in spans.get_finished_spans()}
    at: ReadableSpan | None = child
    while at is not None and at is not top:
        at = by_id.get(at.parent.span_id) if at.parent is not None else None
    return at is top


def test_a_request_the_units_it_queued_and_theirs_are_one_trace(
    here: Installation, http: TestClient, spans: InMemorySpanExporter
):
    model = http.post("/v1/models?name=net", content=onnx_bytes()).json()["id"]
    dataset = http.post("/v1/datasets?name=eval", content=npz_bytes()).json()["id"]
    assert [work(here.context, queue) for queue in ("onnxruntime", "data")] == [1, 1]
    spans.clear()
    asked = {"model": model, "dataset": dataset, "shard_size": 16, "metric": {"name": "mse"}}
    answer = http.post("/v1/sweeps", json=asked, headers={"traceparent": PARENT})
    assert answer.status_code == 202, answer.text
    while work(here.context, "onnxruntime"):
        pass
    request, prepare = named(spans, "POST /v1/sweeps"), named(spans, "unit prepare")
    assert trace_of(request) == PARENT.split("-")[1]
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 202
    assert request.attributes["quantsieve.request_id"] == answer.headers["x-request-id"]
    assert is_under(spans, prepare, request)
    assert prepare.attributes is not None
    assert prepare.attributes["quantsieve.sweep"] == answer.json()["id"]
    assert prepare.attributes["quantsieve.worker"] == "wrk_test"
    ends = {each.name: trace_of(each) for each in spans.get_finished_spans() if each.name.startswith("unit")}
    assert set(ends) >= {"unit prepare", "unit calibrate", "unit measure", "unit report"}
    assert set(ends.values()) == {trace_of(request)}
    assert not any("Bearer" in str(each.attributes) for each in spans.get_finished_spans())


def test_a_unit_that_is_delivered_again_joins_the_trace_of_its_request(
    here: Installation, http: TestClient, spans: InMemorySpanExporter, tmp_path: Path
):
    model = http.post("/v1/models?name=net", content=onnx_bytes(), headers={"traceparent": PARENT}).json()
    (blob,) = (tmp_path / "data" / "blobs").glob(f"*/{model['sha256']}")
    blob.rename(tmp_path / "away")
    hint = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
    assert work(here.context, "onnxruntime", hint=hint) == 1
    (tmp_path / "away").rename(blob)
    assert work(here.context, "onnxruntime") == 1
    request = named(spans, "POST /v1/models")
    first, second = [each for each in spans.get_finished_spans() if each.name == "unit check_model"]
    assert [each.status.is_ok for each in (first, second)] == [False, True]
    for each in (first, second):
        assert is_under(spans, each, request)
    assert [f"{each.context.trace_id:032x}" for each in first.links] == [hint.split("-")[1]]


def test_the_message_carries_the_trace(here: Installation, http: TestClient, spans: InMemorySpanExporter):
    http.post("/v1/models?name=net", content=onnx_bytes())
    (message,) = (here.context.settings.data_dir / "broker" / "messages").iterdir()
    carried = json.loads(message.read_text())["headers"]["traceparent"].split("-")
    with here.context.database.read() as session:
        (unit,) = session.query(UnitRow)
    assert unit.trace is not None
    assert carried[1] == unit.trace.split("-")[1] == trace_of(named(spans, "POST /v1/models"))


def test_a_span_has_the_template_of_the_path_and_says_what_failed(http: TestClient, spans: InMemorySpanExporter):
    http.get("/v1/sweeps/swp_000000000000")
    assert named(spans, "GET /v1/sweeps/{sweep_id}").status.is_ok
    with pytest.raises(ValueError, match="broken"), tracing.span("doing"):
        raise ValueError("broken")
    assert not named(spans, "doing").status.is_ok


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_traces_are_off_unless_the_environment_asks_for_them(environment: dict[str, str], asked: bool):
    assert tracing.asked_for(environment) is asked


def test_an_exporter_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(InvalidInput, match="'zipkin' is not known; give otlp, console or none"):
        tracing.start("quantsieve-api")
