"""Conversions over HTTP: what is admitted, what is refused by name, and the files once a worker has made them."""

import pytest

from service.domain.conversion import ConversionSummary
from service.domain.states import ConversionState, ResourceState, UnitState
from service.store import conversions
from service.store.conversions import ConvertedFile
from service.store.tables import ConversionRow, ModelRow, UnitRow
from tests.service.api.conftest import Service, assert_problem


def quantized(service: Service) -> str:
    model = service.model()
    service.set_row(ModelRow, model, info={"quantized": True})
    return model


def convert(service: Service, **asked: object):
    return service.http.post("/v1/conversions", json=asked)


def unit_state(service: Service, conversion: str) -> str:
    with service.database.read() as session:
        (unit,) = session.query(UnitRow).filter(UnitRow.subject_id == conversion)
        return str(unit.state)


def test_a_conversion_is_accepted_and_queued_where_onnx_is_read(service: Service):
    model, cache = service.model(), service.calibration()
    service.hints.published.clear()
    response = convert(service, model=model, calibration=cache, half=True)
    assert response.status_code == 202, response.text
    made = response.json()
    assert response.headers["location"] == f"/v1/conversions/{made['id']}"
    assert response.headers["retry-after"] == "1"
    assert (made["state"], made["problem"], made["summary"], made["files"]) == ("converting", None, None, [])
    assert (made["settings"]["calibration"], made["settings"]["half"]) == (cache, True)
    assert service.http.get(response.headers["location"]).json() == made
    assert (service.hints.published, unit_state(service, made["id"])) == (["onnxruntime"], UnitState.QUEUED)


def test_it_waits_while_its_model_is_checked(service: Service):
    model, cache = service.model(ready=False), service.calibration()
    service.hints.published.clear()
    made = convert(service, model=model, calibration=cache).json()
    assert (service.hints.published, unit_state(service, made["id"])) == ([], UnitState.WAITING)


WRONG = {
    "no such model": ({"model": "mdl_000000000000"}, "model", "model-not-found", "mdl_000000000000"),
    "no such cache": ({"calibration": "cal_000000000000"}, "calibration", "calibration-not-found", "cal_000000000000"),
    "an unknown axis": ({"transposed_axis": 2}, "transposed_axis", "invalid-input", "0 or 1"),
    "an unknown algorithm": ({"algorithm": "Guess"}, "algorithm", "invalid-input", "EntropyCalibration2"),
    "a version with dots": ({"tensorrt_version": "8.5.1"}, "tensorrt_version", "invalid-input", "pattern"),
    "an option of the other direction": ({"algorithm": "MinMaxCalibration"}, "algorithm", "invalid-input", "leave"),
    "an option without a cache": ({"calibration": None, "half": True}, "half", "invalid-input", "give calibration too"),
    "an unknown option": ({"colour": "red"}, "colour", "invalid-input", "not permitted"),
}


@pytest.mark.parametrize(("asked", "field", "code", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_named(service: Service, asked: dict[str, object], field: str, code: str, words: str):
    response = convert(service, **({"model": service.model(), "calibration": service.calibration()} | asked))
    document = assert_problem(response, 422, code, words)
    assert document["errors"][0]["field"] == field
    with service.database.read() as session:
        assert session.query(ConversionRow).count() == 0


def test_a_model_that_cannot_be_converted_is_refused_with_the_reason(service: Service):
    cache, plain, bad, archive = service.calibration(), service.model(), service.model(), service.model()
    service.set_row(ModelRow, bad, state=ResourceState.REJECTED, problem="its third byte is wrong")
    service.set_row(ModelRow, archive, format="pt2")
    refused = {
        "model-quantized": convert(service, model=quantized(service), calibration=cache),
        "model-not-quantized": convert(service, model=plain),
        "model-rejected": convert(service, model=bad, calibration=cache),
        "conversion-needs-onnx": convert(service, model=archive, calibration=cache),
    }
    for code, response in refused.items():
        assert assert_problem(response, 422, code)["errors"][0]["field"] == "model"
    assert convert(service, model=quantized(service)).status_code == 202


def test_without_a_worker_that_reads_onnx_it_is_refused(service: Service):
    service.worker(torch=True)
    response = convert(service, model=service.model(), calibration=service.calibration())
    assert_problem(response, 503, "backend-unavailable", "no onnxruntime here")


def test_the_files_are_there_once_it_has_succeeded(service: Service):
    made = convert(service, model=service.model(), calibration=service.calibration()).json()["id"]
    early = service.http.get(f"/v1/conversions/{made}/files/qdq.onnx")
    assert_problem(early, 409, "conversion-not-ready")
    assert early.headers["retry-after"]
    file = ConvertedFile("qdq.onnx", "application/octet-stream", service.blobs.put(b"the graph"))
    with service.database.write() as session:
        row = conversions.lock(session, made)
        assert row is not None
        conversions.succeed(
            session, row, ConversionSummary(int8=2, left_float=1, entries=3, unused=0, findings=0), [file]
        )
    found = service.http.get(f"/v1/conversions/{made}").json()
    assert (found["state"], found["summary"]["left_float"]) == ("succeeded", 1)
    (listed,) = found["files"]
    response = service.http.get(listed["link"])
    assert response.content == b"the graph"
    assert response.headers["content-disposition"] == 'attachment; filename="qdq.onnx"'
    assert response.headers["etag"] == f'"{listed["sha256"]}"'
    assert_problem(service.http.get(f"/v1/conversions/{made}/files/other"), 404, "file-not-found")


def test_why_it_failed_is_said_wherever_one_looks(service: Service):
    made = convert(service, model=service.model(), calibration=service.calibration()).json()["id"]
    with service.database.write() as session:
        row = conversions.lock(session, made)
        assert row is not None
        conversions.fail(session, row, code="invalid-input", problem="the cache is of another model")
    found = service.http.get(f"/v1/conversions/{made}").json()
    assert found["state"] == ConversionState.FAILED
    assert found["problem"] == {"code": "invalid-input", "message": "the cache is of another model"}
    response = service.http.get(f"/v1/conversions/{made}/files/qdq.onnx")
    assert_problem(response, 409, "conversion-failed", "another model")


def test_what_a_conversion_uses_stays_until_it_is_deleted(service: Service):
    model, cache = service.model(), service.calibration()
    made = convert(service, model=model, calibration=cache).json()["id"]
    assert_problem(service.http.delete(f"/v1/models/{model}"), 409, "model-in-use", "1 conversion used")
    assert_problem(service.http.delete(f"/v1/calibrations/{cache}"), 409, "calibration-in-use", "1 conversion used")
    for url in (f"conversions/{made}", f"models/{model}", f"calibrations/{cache}"):
        assert service.http.delete(f"/v1/{url}").status_code == 204
    with service.database.read() as session:
        assert session.query(UnitRow).count() == 0


def test_lists_go_page_by_page_newest_first(service: Service):
    model, cache = service.model(), service.calibration()
    ids = [convert(service, model=model, calibration=cache).json()["id"] for _ in range(3)]
    first = service.http.get("/v1/conversions?limit=2").json()
    rest = service.http.get("/v1/conversions", params={"cursor": first["next_cursor"]}).json()
    assert [each["id"] for each in first["items"] + rest["items"]] == ids[::-1]


@pytest.mark.parametrize("unknown", ["x", "cnv_000000000000", "a%00b"])
def test_what_is_not_there_is_404(service: Service, unknown: str):
    for method, url in (("GET", unknown), ("DELETE", unknown), ("GET", f"{unknown}/files/qdq.onnx")):
        assert_problem(service.http.request(method, f"/v1/conversions/{url}"), 404, "conversion-not-found")
