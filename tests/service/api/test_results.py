import csv

import pytest

from service.api.results import prefers_csv
from service.domain.layers import Layer, Operation
from service.domain.results import Interval, LayerResult, VariantScore
from service.domain.states import SweepState
from service.store.tables import ArtifactRow, LayerRow, ScoreRow, SweepRow
from tests.service.api.conftest import assert_problem


def layer(layer_id: str) -> Layer:
    return Layer(id=layer_id, name=f"net.{layer_id}", op=Operation.CONV, activations=(f"{layer_id}:0",))


def score(variant: str, value: float) -> VariantScore:
    number = Interval(value=value, low=value - 0.1, high=value + 0.1, method="t", samples=10)
    return VariantScore(variant=variant, metric=number, drop=number, measures={"kl": number})


@pytest.fixture
def sweep(service) -> str:
    return service.sweep().json()["id"]


def plan(service, sweep: str) -> None:
    layers = [layer("a").model_dump(mode="json"), layer("b").model_dump(mode="json")]
    service.set_row(SweepRow, sweep, plan={"layers": layers, "excluded": {"b": "excluded by 'b'"}})


def measure(service, sweep: str) -> None:
    rows = [
        LayerResult(layer=layer("a"), state="measured", rank=1, significant=True, score=score("layer:a", 0.5)),
        LayerResult(layer=layer("b"), state="failed", reason="it overflowed"),
    ]
    with service.database.write() as session:
        for position, row in enumerate(rows):
            session.add(
                LayerRow(
                    sweep_id=sweep,
                    position=position,
                    layer_id=row.layer.id,
                    name=row.layer.name,
                    state=row.state,
                    document=row.model_dump(mode="json"),
                )
            )
        document = score("fp32", 0.9).model_dump(mode="json")
        session.add(ScoreRow(sweep_id=sweep, variant="fp32", document=document))


def succeed(service, sweep: str) -> None:
    files = {
        "report.json": ("application/json", b'{"report": 1}'),
        "report.html": ("text/html; charset=utf-8", b"<!doctype html><p>hello"),
        "fallback_layers.json": ("application/json", b'{"fallback": []}'),
    }
    with service.database.write() as session:
        for name, (media_type, content) in files.items():
            blob = service.blobs.put(content)
            session.add(
                ArtifactRow(sweep_id=sweep, name=name, media_type=media_type, sha256=blob.sha256, size=blob.size)
            )
        session.get_one(SweepRow, sweep).state = SweepState.SUCCEEDED


def test_before_planning_there_are_no_layers(service, sweep):
    response = service.http.get(f"/v1/sweeps/{sweep}/layers")
    assert_problem(response, 409, "layers-not-ready", "before planning")
    assert response.headers["retry-after"]


def test_planned_layers_are_shown_before_they_are_measured(service, sweep):
    plan(service, sweep)
    table = service.http.get(f"/v1/sweeps/{sweep}/layers").json()
    assert [(each["state"], each["reason"]) for each in table["layers"]] == [
        ("pending", None),
        ("excluded", "excluded by 'b'"),
    ]
    assert not table["complete"]


def test_partial_results_are_served(service, sweep):
    plan(service, sweep)
    measure(service, sweep)
    table = service.http.get(f"/v1/sweeps/{sweep}/layers").json()
    assert [each["layer"]["name"] for each in table["layers"]] == ["net.a", "net.b"]
    assert table["layers"][0]["score"]["drop"]["value"] == 0.5
    assert [each["variant"] for each in table["scores"]] == ["fp32"]
    assert not table["complete"]


def test_layers_as_csv(service, sweep):
    measure(service, sweep)
    response = service.http.get(f"/v1/sweeps/{sweep}/layers", headers={"Accept": "text/csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(response.text.splitlines()))
    assert [row["name"] for row in rows] == ["net.a", "net.b"]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/csv", True),
        ("text/csv, application/json;q=0.5", True),
        ("text/csv;q=0.5, application/json", False),
        ("*/*", False),
        ("", False),
        ("text/csv;q=x", False),
        ("text/csv, application/json", False),
    ],
)
def test_accept(accept, expected):
    assert prefers_csv(accept) is expected


@pytest.mark.parametrize(
    "path", ["report.json", "report.html", "fallback-layers", "artifacts", "artifacts/report.json"]
)
def test_reports_are_409_until_they_are_ready(service, sweep, path):
    response = service.http.get(f"/v1/sweeps/{sweep}/{path}")
    assert_problem(response, 409, "report-not-ready", "is queued")
    assert response.headers["retry-after"]
    service.set_row(SweepRow, sweep, state=SweepState.FAILED, problem="the model is on fire", problem_code="fire")
    assert_problem(service.http.get(f"/v1/sweeps/{sweep}/{path}"), 409, "sweep-failed", "the model is on fire")
    assert service.http.get(f"/v1/sweeps/{sweep}").json()["problem"] == {
        "code": "fire",
        "message": "the model is on fire",
    }


def test_reports(service, sweep):
    measure(service, sweep)
    succeed(service, sweep)
    base = f"/v1/sweeps/{sweep}"
    assert service.http.get(f"{base}/report.json").json() == {"report": 1}
    assert service.http.get(f"{base}/fallback-layers").json() == {"fallback": []}
    page = service.http.get(f"{base}/report.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("sandbox")
    assert "attachment" not in page.headers.get("content-disposition", "")
    assert service.http.get(f"{base}/layers").json()["complete"]
    ended = service.http.get(base).json()
    assert (ended["progress"]["fraction"], ended["eta_seconds"]) == (1.0, 0.0)


def test_artifacts(service, sweep):
    succeed(service, sweep)
    listed = service.http.get(f"/v1/sweeps/{sweep}/artifacts").json()["items"]
    assert [each["name"] for each in listed] == ["fallback_layers.json", "report.html", "report.json"]
    download = service.http.get(listed[1]["link"])
    assert download.headers["content-disposition"] == 'attachment; filename="report.html"'
    assert download.headers["content-security-policy"].startswith("sandbox")
    assert len(download.content) == listed[1]["size"]
    for name in ("nothing", "..%2F..%2Fetc%2Fpasswd", "a%00b"):
        response = service.http.get(f"/v1/sweeps/{sweep}/artifacts/{name}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"
