import pytest

from service.domain.states import Phase, ResourceState, SweepState, UnitKind, UnitState
from service.store import units
from service.store.tables import DatasetRow, ModelRow, SweepRow, UnitRow
from service.store.units import NewUnit
from tests.service.api.conftest import assert_problem
from tests.service.api.files import pt2_bytes


def sweeps_of(service) -> int:
    with service.database.read() as session:
        return session.query(SweepRow).count()


def test_a_sweep_is_accepted(service):
    service.worker(onnxruntime=True)
    response = service.sweep(budget={"max_drop": 0.01})
    assert response.status_code == 202
    sweep = response.json()
    assert response.headers["location"] == sweep["links"]["self"] == f"/v1/sweeps/{sweep['id']}"
    assert response.headers["retry-after"] == "2"
    assert (sweep["state"], sweep["phase"], sweep["backend"]) == ("queued", "prepare", "onnxruntime")
    assert sweep["progress"] == {"fraction": 0.0, "estimated": True, "units_done": 0, "units_total": 1}
    assert (sweep["eta_seconds"], sweep["problem"], sweep["warnings"], sweep["decision"]) == (None, None, [], None)
    assert sweep["settings"]["budget"] == {"max_drop": 0.01, "relative": False}
    assert service.hints.published[-1] == "onnxruntime"
    assert service.http.get(sweep["links"]["self"]).json() == sweep


def test_without_a_worker_the_sweep_waits_and_says_so(service):
    sweep = service.sweep().json()
    assert [each["code"] for each in sweep["warnings"]] == ["no-worker"]


def test_the_backend_follows_the_format(service):
    model = service.http.post("/v1/models?name=net", content=pt2_bytes()).json()["id"]
    assert service.sweep(model=model).json()["backend"] == "torch"
    refused = service.sweep(model=model, backend="onnxruntime")
    document = assert_problem(refused, 422, "backend-format-mismatch", "torch can")
    assert document["errors"][0]["field"] == "backend"
    assert_problem(service.sweep(backend="torch"), 422, "backend-format-mismatch", "onnxruntime or tensorrt can")


def test_a_sweep_that_asks_for_a_device_goes_to_the_workers_that_have_it(service):
    service.worker(queues=("data", "onnxruntime", "onnxruntime-cpu"), onnxruntime=True)
    refused = service.sweep(device="cuda")
    assert_problem(refused, 503, "device-unavailable", "device: no worker offers onnxruntime on cuda")
    taken = service.sweep(device="cpu")
    assert taken.status_code == 202
    assert service.hints.published[-1] == "onnxruntime-cpu"
    with service.database.read() as session:
        unit = session.query(UnitRow).filter_by(subject_id=taken.json()["id"]).one()
    assert unit.queue == "onnxruntime-cpu"
    on_tensorrt = service.sweep(backend="tensorrt", device="cpu")
    assert_problem(on_tensorrt, 422, "invalid-input", "device: cpu is not for backend tensorrt")


def test_segments_are_for_the_backend_that_cuts_the_graph(service):
    model = service.http.post("/v1/models?name=net", content=pt2_bytes()).json()["id"]
    refused = service.sweep(model=model, segments=2)
    document = assert_problem(refused, 422, "invalid-input", "segments: 2 is for backend onnxruntime")
    assert document["errors"][0]["field"] == "segments"
    assert service.sweep(segments=2).json()["settings"]["segments"] == 2


def test_implicit_int8_is_for_tensorrt_which_scales_weights_by_channel(service):
    document = assert_problem(service.sweep(quantization="implicit"), 422, "invalid-input", "is for backend tensorrt")
    assert document["errors"][0]["field"] == "quantization"
    refused = service.sweep(backend="tensorrt", quantization="implicit", weights="per_tensor")
    document = assert_problem(refused, 422, "invalid-input", "does not go with quantization implicit")
    assert document["errors"][0]["field"] == "weights"
    assert service.sweep(quantization="explicit").status_code == 202


def test_the_precision_of_fallback_layers_is_for_models_that_leave_a_graph(service):
    model = service.http.post("/v1/models?name=net", content=pt2_bytes()).json()["id"]
    refused = service.sweep(model=model, fallback_precision="fp16")
    document = assert_problem(refused, 422, "invalid-input", "fallback_precision: fp16 is that of layers in mixed.onnx")
    assert document["errors"][0]["field"] == "fallback_precision"
    assert service.sweep(model=model, fallback_precision="fp32").status_code == 202
    assert service.sweep(fallback_precision="fp16").json()["settings"]["fallback_precision"] == "fp16"


def test_a_sweep_on_what_is_still_checked_waits_without_a_hint(service):
    model, dataset = service.model(), service.dataset(ready=False)
    checks = list(service.hints.published)
    sweep = service.sweep(model=model, dataset=dataset).json()
    assert service.hints.published == checks
    with service.database.read() as session:
        assert units.units_of(session, sweep["id"], UnitKind.PREPARE)[0].state == UnitState.WAITING


@pytest.mark.parametrize("field", ["model", "dataset", "calibration.dataset"])
def test_a_rejected_resource_is_refused_with_its_reason(service, field):
    table = ModelRow if field == "model" else DatasetRow
    bad = service.model() if field == "model" else service.dataset()
    service.set_row(table, bad, state=ResourceState.REJECTED, problem="its third byte is wrong")
    body = {"calibration": {"dataset": bad}} if field == "calibration.dataset" else {field: bad}
    code = "model-rejected" if field == "model" else "dataset-rejected"
    document = assert_problem(service.sweep(**body), 422, code, "its third byte is wrong")
    assert document["errors"][0]["field"] == field
    assert sweeps_of(service) == 0


@pytest.mark.parametrize("unknown", ["mdl_000000000000", "x", "a\0b", "../x"])
def test_resources_must_be_there(service, unknown):
    assert_problem(service.sweep(model=unknown), 422, "model-not-found")
    assert_problem(service.sweep(dataset=unknown), 422, "dataset-not-found")
    assert_problem(service.sweep(calibration={"dataset": unknown}), 422, "dataset-not-found")
    assert sweeps_of(service) == 0


def test_a_calibration_cache_that_is_there_is_taken_and_cannot_be_deleted_any_more(service):
    cache = service.calibration()
    response = service.sweep(calibration={"cache": cache})
    assert response.status_code == 202, response.text
    assert response.json()["settings"]["calibration"] == {"cache": cache}
    assert_problem(service.http.delete(f"/v1/calibrations/{cache}"), 409, "calibration-in-use", "1 sweep used")


@pytest.mark.parametrize("unknown", ["cal_000000000000", "mdl_000000000000", "a\0b"])
def test_a_calibration_cache_must_be_there(service, unknown):
    document = assert_problem(service.sweep(calibration={"cache": unknown}), 422, "calibration-not-found")
    assert document["errors"][0]["field"] == "calibration.cache"
    assert sweeps_of(service) == 0


def test_a_model_without_an_onnx_graph_takes_no_calibration_cache(service):
    model = service.model()
    service.set_row(ModelRow, model, format="pt2")
    response = service.sweep(model=model, calibration={"cache": service.calibration()})
    document = assert_problem(response, 422, "cache-needs-onnx", "upload the model as ONNX")
    assert document["errors"][0]["field"] == "calibration.cache"


def test_a_model_that_is_quantized_already_is_not_swept(service):
    model = service.model()
    service.set_row(ModelRow, model, info={"quantized": True})
    document = assert_problem(service.sweep(model=model), 422, "model-quantized", "upload the fp32 one")
    assert document["errors"][0]["field"] == "model"


def test_tensorrt_is_refused_with_the_reason(service):
    assert_problem(service.sweep(backend="tensorrt"), 503, "backend-unavailable", "none is running")
    service.worker(onnxruntime=True)
    assert_problem(service.sweep(backend="tensorrt"), 503, "backend-unavailable", "no tensorrt here")
    service.worker(tensorrt=True)
    assert service.sweep(backend="tensorrt").status_code == 202


def test_a_backend_that_no_live_worker_offers_is_refused(service):
    service.worker(torch=True)
    assert_problem(service.sweep(), 503, "backend-unavailable", "no onnxruntime here")
    assert sweeps_of(service) == 0


@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_label_metrics_need_labels(service, metric):
    bare = service.dataset(labels=False)
    document = assert_problem(service.sweep(dataset=bare, metric={"name": metric}), 422, "labels-missing", "kl")
    assert document["errors"][0]["field"] == "metric.name"
    assert service.sweep(dataset=bare, metric={"name": "kl"}).status_code == 202


WRONG = {
    "unknown_field": ({"bugdet": 1}, "bugdet"),
    "mode": ({"mode": "both"}, "mode"),
    "backend": ({"backend": "openvino"}, "backend"),
    "negative_drop": ({"budget": {"max_drop": -1}}, "budget.max_drop"),
    "seed": ({"seed": -1}, "seed"),
    "percentile": ({"calibration": {"method": "percentile", "percentile": 5}}, "calibration.percentile"),
    "beside_a_cache": ({"calibration": {"cache": "cal_1", "samples": 64}}, "calibration.samples"),
    "threshold": ({"selection": {"algorithm": "threshold"}}, "selection"),
    "samples": ({"samples": 0}, "samples"),
    "too_many_samples": ({"samples": 5}, "samples"),
    "include": ({"include": "conv*"}, "include"),
}


@pytest.mark.parametrize(("asked", "field"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_named(service, asked, field):
    document = assert_problem(service.sweep(**asked), 422, "invalid-input", field.rpartition(".")[2])
    assert document["errors"][0]["field"] == field
    assert sweeps_of(service) == 0


METHODS = {
    "one_off": ({"method": "probe", "mode": "one_off"}, "mode"),
    "threshold": (
        {"method": "probe", "selection": {"algorithm": "threshold", "threshold": 0.1}, "metric": {"name": "top1"}},
        "selection.threshold",
    ),
    "threshold_then_exact": (
        {"method": "probe_then_exact", "selection": {"algorithm": "threshold", "threshold": 0.1}},
        "selection.threshold",
    ),
    "directions": ({"method": "probe", "probe": {"directions": 0}}, "probe.directions"),
    "unknown": ({"method": "guess"}, "method"),
}


@pytest.mark.parametrize(("asked", "field"), METHODS.values(), ids=METHODS)
def test_what_probes_cannot_do_is_refused(service, asked, field):
    document = assert_problem(service.sweep(**asked), 422, "invalid-input", field.rpartition(".")[2])
    assert document["errors"][0]["field"] == field
    assert sweeps_of(service) == 0


def test_a_threshold_on_a_measure_of_probes_is_taken(service):
    asked = {"method": "probe", "metric": {"name": "kl"}, "selection": {"algorithm": "threshold", "threshold": 0.1}}
    assert service.sweep(**asked).status_code == 202


def test_a_budget_on_sqnr_is_refused(service):
    response = service.sweep(metric={"name": "sqnr"}, budget={"max_drop": 1})
    assert_problem(response, 422, "budget-needs-finite-metric", "sqnr")


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"\\ud800"', '"\\u0000"'])
def test_what_no_database_can_hold_is_refused(service, value):
    body = f'{{"model": "{service.model()}", "dataset": "{service.dataset()}", "metric": {{"args": {{"a": {value}}}}}}}'
    response = service.http.post("/v1/sweeps", content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, "invalid-input")
    assert sweeps_of(service) == 0


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe{", b"nonsense", b'{"model": "\xff"}'])
def test_a_body_that_is_not_json_is_400(service, body):
    response = service.http.post("/v1/sweeps", content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 400, "undecodable-json", "not JSON")


def test_a_body_that_is_far_too_large_is_413(service):
    response = service.http.post(
        "/v1/sweeps", content=b" " * 2_000_000 + b"{}", headers={"Content-Type": "application/json"}
    )
    assert_problem(response, 413, "too-large")


def test_the_same_key_gives_the_same_sweep(service):
    body = {"model": service.model(), "dataset": service.dataset()}
    first, second = (service.http.post("/v1/sweeps", json=body, headers={"Idempotency-Key": "k1"}) for _ in range(2))
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]
    assert sweeps_of(service) == 1
    other = service.http.post("/v1/sweeps", json={**body, "seed": 1}, headers={"Idempotency-Key": "k1"})
    assert_problem(other, 422, "idempotency-key-reused", first.json()["id"])
    wrong = service.http.post("/v1/sweeps", json=body, headers={"Idempotency-Key": "a b"})
    assert_problem(wrong, 422, "invalid-input", "Idempotency-Key")


def test_what_has_not_changed_is_not_sent_again(service):
    sweep = service.sweep().json()
    url = sweep["links"]["self"]
    tag = service.http.get(url).headers["etag"]
    same = service.http.get(url, headers={"If-None-Match": f'"x", {tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    service.set_row(SweepRow, sweep["id"], state=SweepState.RUNNING)
    assert service.http.get(url, headers={"If-None-Match": tag}).status_code == 200


def test_progress_and_time_left_come_from_the_units(service):
    sweep_id = service.sweep().json()["id"]
    service.set_row(SweepRow, sweep_id, state=SweepState.RUNNING, phase=Phase.MEASURE)
    with service.database.write() as session:
        new = [
            NewUnit(UnitKind.MEASURE, sweep_id, "gpu", sweep_id=sweep_id, ordinal=ordinal, cost=10.0)
            for ordinal in range(4)
        ]
        ids = units.add_units(session, new)
    tag = service.http.get(f"/v1/sweeps/{sweep_id}").headers["etag"]
    with service.database.write() as session:
        units.finish(session, units.claim(session, "gpu", owner="w", lease_seconds=60), result={})
    for unit_id in ids:
        with service.database.read() as session:
            started = session.get_one(UnitRow, unit_id).started_at
        if started is not None:
            service.set_row(UnitRow, unit_id, started_at=started - 10)
    response = service.http.get(f"/v1/sweeps/{sweep_id}")
    sweep = response.json()
    assert response.headers["etag"] != tag
    assert sweep["progress"]["fraction"] == pytest.approx(0.07 + 0.78 / 4, abs=1e-3)
    assert sweep["eta_seconds"] == pytest.approx(36, rel=0.2)  # 10 in 10 s; 30 are left, and 6 for the verification


def test_cancelling_twice_is_the_same(service):
    sweep_id = service.sweep().json()["id"]
    for _ in range(2):
        response = service.http.post(f"/v1/sweeps/{sweep_id}/cancel")
        assert (response.status_code, response.json()["state"]) == (202, "cancelled")
    for path in ("report.json", "report.html", "fallback-layers", "artifacts", "layers"):
        assert_problem(service.http.get(f"/v1/sweeps/{sweep_id}/{path}"), 409, "sweep-cancelled")


def test_deleting_needs_an_end(service):
    sweep_id = service.sweep().json()["id"]
    assert_problem(service.http.delete(f"/v1/sweeps/{sweep_id}"), 409, "sweep-not-ended", "cancel it first")
    service.http.post(f"/v1/sweeps/{sweep_id}/cancel")
    assert service.http.delete(f"/v1/sweeps/{sweep_id}").status_code == 204
    assert_problem(service.http.get(f"/v1/sweeps/{sweep_id}"), 404, "sweep-not-found")


@pytest.mark.parametrize("path", ["", "/layers", "/report.json", "/report.html", "/fallback-layers", "/artifacts"])
@pytest.mark.parametrize("unknown", ["swp_000000000000", "a%00b"])
def test_what_is_not_there_is_404(service, unknown, path):
    assert_problem(service.http.get(f"/v1/sweeps/{unknown}{path}"), 404, "sweep-not-found")


def test_the_list_is_newest_first(service):
    ids = [service.sweep().json()["id"] for _ in range(3)]
    page = service.http.get("/v1/sweeps?limit=2").json()
    rest = service.http.get("/v1/sweeps", params={"cursor": page["next_cursor"]}).json()
    assert [each["id"] for each in page["items"] + rest["items"]] == ids[::-1]
