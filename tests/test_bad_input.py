"""Every bad input of a stranger through HTTP: what it is answered, and that nothing of it stays behind.

What can be seen cheaply is refused at once, with a 4xx. What needs a parser is rejected by a worker; what shows only
when model, evaluation set and settings come together ends the sweep, before anything is measured where that is known.
"""

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.domain.states import UnitState
from service.store.tables import UnitRow
from tests.live_service import LiveService, live_service
from tests.service.api.files import lying_npz, pt2_bytes, safetensors_bytes, zip_bomb, zip_bytes
from tests.small_network import labels, network, npz, samples

MODEL = network().SerializeToString()
OPEN_UNITS = {UnitState.QUEUED, UnitState.LEASED, UnitState.WAITING}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    with live_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def good(service: LiveService) -> dict[str, str]:
    """A model and an evaluation set with which nothing is wrong, and one without labels."""
    return {
        "model": service.ready("models", MODEL),
        "dataset": service.ready("datasets", npz()),
        "unlabelled": service.ready("datasets", npz(x=samples())),
    }


def png(size: tuple[int, int] = (8, 8)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (9, 9, 9)).save(out, "PNG")
    return out.getvalue()


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def assert_problem(response: httpx.Response, status: int, code: str, words: str, field: str | None = None) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["type"], problem["status"]) == (f"urn:quantsieve:problem:{code}", status)
    assert words in problem["detail"]
    if field is not None:
        assert problem["errors"][0]["field"] == field


REFUSED_UPLOADS = {
    "an empty body": ("models", b"", "rejected-file", "the body is empty"),
    "a model that is no ONNX": ("models", b"this is no model", "not-a-model", "send an ONNX file (.onnx)"),
    "a truncated ONNX": ("models", MODEL[:-60], "onnx-cut-off", f"{len(MODEL) - 60} are there; send it once more"),
    "a pickle": ("models", pickle.dumps({"w": 1}), "pickle", "torch.onnx.export(model"),
    "a truncated torch.export archive": ("models", pt2_bytes()[:70], "zip-damaged", "send it once more"),
    "two models in one zip": ("models", zip_bytes({"a.onnx": MODEL, "b.onnx": MODEL}), "several-models", "one .onnx"),
    "a zip that leads out": ("models", zip_bytes({"a.onnx": MODEL, "../../w": b"x"}), "zip-escape", "'../../w'"),
    "an empty evaluation set": ("datasets", npz(x=samples(0)), "no-samples", "'x' holds 0 samples; at least one"),
    "arrays of different length": ("datasets", npz(x=samples(), labels=labels(7)), "different-lengths", "'labels' 7"),
    "a header that lies": ("datasets", lying_npz(), "array-size", "claims 800000000000 bytes"),
    "objects": ("datasets", npz(x=np.array([{}, []], object)), "object-array", "numeric dtype, such as float32"),
    "labels alone": ("datasets", npz(labels=labels()), "no-inputs", "add an array that is named after"),
    "two label arrays": ("datasets", npz(x=samples(), label=labels(), target=labels()), "ambiguous-labels", "keep one"),
    "safetensors beyond its end": (
        *("datasets", safetensors_bytes({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})),
        *("safetensors-header", "holds 0 bytes of data"),
    ),
    "Parquet cut off": ("datasets", parquet(x=[[1.0]])[:-20], "parquet-cut-off", "its end is missing"),
    "images in no folder": ("datasets", zip_bytes({"1.png": png()}), "no-class-folder", "cat/001.jpg and dog/002.jpg"),
    "a zip bomb": ("datasets", zip_bomb(), "zip-bomb", "more than 200 times as many"),
}


@pytest.mark.parametrize(("noun", "content", "code", "words"), REFUSED_UPLOADS.values(), ids=REFUSED_UPLOADS)
def test_an_upload_is_refused_at_once(
    service: LiveService, good: dict[str, str], noun: str, content: bytes, code: str, words: str
) -> None:
    before = service.kept()
    assert_problem(service.upload(noun, content), 422, code, words)
    assert service.kept() == before


WRONG_PREPROCESSING = {
    "unknown": ({"scael": 2}, "preprocessing.scael", "preprocessing is a JSON object with any of dtype, layout"),
    "layout": ({"layout": "HWC"}, "preprocessing.layout", "'NCHW' or 'NHWC'"),
    "scale": ({"scale": 0}, "preprocessing.scale", "greater than 0"),
}


@pytest.mark.parametrize(("given", "field", "words"), WRONG_PREPROCESSING.values(), ids=WRONG_PREPROCESSING)
def test_a_wrong_preprocessing_is_refused_at_once(
    service: LiveService, good: dict[str, str], given: dict[str, Any], field: str, words: str
) -> None:
    before = service.kept()
    response = service.upload("datasets", npz(x=samples(3)), preprocessing=json.dumps(given))
    assert_problem(response, 422, "bad-preprocessing", words, field)
    assert service.kept() == before


REFUSED_SWEEPS = {
    "an unknown field": ({"bugdet": 1}, 422, "invalid-input", "bugdet", "Extra inputs are not permitted"),
    "a field too deep": ({"metric": {"nmae": "top1"}}, 422, "invalid-input", "metric.nmae", "Extra inputs"),
    "no model": ({"model": None}, 422, "invalid-input", "model", "valid string"),
    "a model that is not there": ({"model": "mdl_000000000000"}, 422, "model-not-found", "model", "no model 'mdl_0"),
    "a set that is not there": ({"dataset": "dat_000000000000"}, 422, "dataset-not-found", "dataset", "no dataset"),
    "an id of another kind": ({"dataset": "mdl_000000000000"}, 422, "dataset-not-found", "dataset", "no dataset 'mdl_"),
    "a negative budget": ({"budget": {"max_drop": -0.1}}, 422, "invalid-input", "budget.max_drop", "equal to 0"),
    "a budget of text": ({"budget": {"max_drop": "much"}}, 422, "invalid-input", "budget.max_drop", "valid number"),
    "a budget without a bound": (
        *({"metric": {"name": "sqnr"}, "budget": {"max_drop": 1}}, 422, "budget-needs-finite-metric"),
        *("budget", "set a budget on another metric"),
    ),
    "no such backend": (
        {"backend": "openvino"},
        422,
        "invalid-input",
        "backend",
        "'torch', 'onnxruntime' or 'tensorrt'",
    ),
    "no such mode": ({"mode": "both"}, 422, "invalid-input", "mode", "'one_on' or 'one_off'"),
    "a backend for another format": ({"backend": "torch"}, 422, "backend-format-mismatch", "backend", "onnxruntime or"),
    "a backend that no worker offers": (
        *({"backend": "tensorrt"}, 503, "backend-unavailable", None),
        "no worker offers tensorrt",
    ),
    "more samples than there are": ({"samples": 17}, 422, "invalid-input", "samples", "holds 16"),
    "a percentile of nothing": (
        *({"calibration": {"method": "percentile", "percentile": 101}}, 422, "invalid-input"),
        *("calibration.percentile", "less than or equal to 100"),
    ),
    "a pattern that is no list": ({"include": "conv*"}, 422, "invalid-input", "include", "valid tuple"),
}


@pytest.mark.parametrize(("asked", "status", "code", "field", "words"), REFUSED_SWEEPS.values(), ids=REFUSED_SWEEPS)
def test_a_sweep_is_refused_at_once(
    service: LiveService,
    good: dict[str, str],
    asked: dict[str, Any],
    status: int,
    code: str,
    field: str | None,
    words: str,
) -> None:
    before = service.kept()
    body = {"model": good["model"], "dataset": good["dataset"], **asked}
    assert_problem(service.http.post("/v1/sweeps", json=body), status, code, words, field)
    assert service.kept() == before


@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_a_metric_that_needs_labels_is_refused_at_once_on_a_set_without(
    service: LiveService, good: dict[str, str], metric: str
) -> None:
    before = service.kept()
    body = {"model": good["model"], "dataset": good["unlabelled"], "metric": {"name": metric}}
    words = f"{metric} needs labels, and {good['unlabelled']} holds none; mse, sqnr, cosine, kl and agreement need none"
    assert_problem(service.http.post("/v1/sweeps", json=body), 422, "labels-missing", words, "metric.name")
    assert service.kept() == before


def test_ids_that_are_not_there_are_404(service: LiveService) -> None:
    for noun, prefix in (("model", "mdl"), ("dataset", "dat"), ("sweep", "swp")):
        for unknown in (f"{prefix}_000000000000", "nonsense", "..%2f..%2fetc%2fpasswd"):
            response = service.http.get(f"/v1/{noun}s/{unknown}")
            code = "no-such-path" if "%2f" in unknown else f"{noun}-not-found"
            assert_problem(response, 404, code, "")


REJECTED = {
    "an ONNX that does not parse": ("models", b"\x08\x08\x3a\x05hello", "this is not an ONNX model"),
    "an ONNX of an old opset": (
        *("models", network(opset=12).SerializeToString()),
        "the model uses ONNX opset 12; 13 or later is needed: export it again",
    ),
    "an ONNX whose weights do not fit": (
        *("models", network(weights={"fc.weight": np.ones((4, 5), np.float32)}).SerializeToString()),
        "ONNX Runtime cannot run the model",
    ),
    "an ONNX whose weights were left behind": (
        *("models", network(external="weights.bin").SerializeToString()),
        "the weights are in another file ('weights.bin'), which was not uploaded; send a zip of the .onnx file and",
    ),
    "external data that is not in the zip": (
        *("models", zip_bytes({"net.onnx": network(external="w.bin").SerializeToString(), "W.bin": b"x"})),
        "tensor 'conv.weight' has its data at 'w.bin', which is not in the zip; beside the .onnx file it holds 'W.bin'",
    ),
    "external data by a path that leads out": (
        *("models", zip_bytes({"net.onnx": network(external="../../etc/passwd").SerializeToString()})),
        "has its data at '../../etc/passwd', which is not in the zip; a location must be a relative path without '..'",
    ),
    "external data by an absolute path": (
        *("models", zip_bytes({"net.onnx": network(external="/etc/passwd").SerializeToString()})),
        "has its data at '/etc/passwd', which is not in the zip; a location must be a relative path without '..'",
    ),
    "a pt2 that is no torch.export archive": ("models", pt2_bytes(), "torch.export cannot load this archive"),
    "an image that cannot be decoded": (
        *("datasets", zip_bytes({"cat/1.png": b"this is no image", "dog/1.png": png()})),
        "image 'cat/1.png' is none of JPEG, PNG, BMP, WEBP, or is damaged",
    ),
    "a Parquet file without an input": (
        *("datasets", parquet(name=["a"], label=[1])),
        "no column can be an input: 'name' ('string'), 'label' ('int64'); needed are images",
    ),
    "a Parquet file of ragged rows": ("datasets", parquet(x=[[1.0], [1.0, 2.0]]), "all samples must have one shape"),
    "a Parquet file with class names": (
        *("datasets", parquet(x=[[1.0]], label=["cat"])),
        "labels must be numbers: store the class's number",
    ),
    "an empty Parquet file": (
        "datasets",
        parquet(x=pa.array([], pa.list_(pa.float32()))),
        "holds 0 rows; at least one",
    ),
}


@pytest.mark.parametrize(("noun", "content", "words"), REJECTED.values(), ids=REJECTED)
def test_an_upload_is_rejected_by_the_worker_and_no_sweep_runs_on_it(
    service: LiveService, good: dict[str, str], noun: str, content: bytes, words: str
) -> None:
    before = service.kept()
    rejected = service.checked(noun, content)
    assert rejected["state"] == "rejected"
    assert words in rejected["problem"]
    assert str(service.blobs.folder) not in rejected["problem"]

    field = noun.removesuffix("s")
    kept = service.kept()
    body = {"model": good["model"], "dataset": good["dataset"], field: rejected["id"]}
    words = f"{field}: {rejected['id']} was rejected: {rejected['problem']}"
    assert_problem(service.http.post("/v1/sweeps", json=body), 422, f"{field}-rejected", words, field)
    assert service.kept() == kept

    service.delete(f"/v1/{noun}/{rejected['id']}")
    assert service.kept() == before


def test_a_rejected_calibration_set_is_refused_too(service: LiveService, good: dict[str, str]) -> None:
    rejected = service.checked("datasets", parquet(x=[[1.0], [1.0, 2.0]]))
    body = {"model": good["model"], "dataset": good["dataset"], "calibration": {"dataset": rejected["id"]}}
    response = service.http.post("/v1/sweeps", json=body)
    assert_problem(response, 422, "dataset-rejected", rejected["problem"], "calibration.dataset")
    service.delete(f"/v1/datasets/{rejected['id']}")


MISFITS = {
    "another shape": (npz(x=samples()[:, :, :4]), {}, "shape-mismatch", "samples of shape (3, 4, 8), but the model's"),
    "stored as NHWC": (
        *(npz(x=samples().transpose(0, 2, 3, 1)), {}, "shape-mismatch"),
        'stored as NHWC: give preprocessing {"layout": "NHWC"}',
    ),
    "two arrays, none of them the input": (
        *(npz(a=samples(), b=samples()), {}, "input-names"),
        "holds the arrays 'a', 'b'; the model's inputs are 'x': name the arrays after the inputs (missing: 'x')",
    ),
    "bytes without a scale": (
        *(npz(x=np.zeros((16, 3, 8, 8), np.uint8)), {}, "ambiguous-dtype"),
        "give preprocessing with scale, e.g. 1/255",
    ),
    "too many means": (
        *(npz(x=samples()), {"mean": [1, 2]}, "bad-preprocessing"),
        "preprocessing.mean has 2 values, but array 'x' has 3 channels",
    ),
    "NaN in a sample": (
        *(npz(x=np.where(np.arange(16)[:, None, None, None] == 15, np.nan, samples()).astype(np.float32)), {}),
        *("not-finite", "array 'x' holds NaN in sample 15; inputs must be finite numbers"),
    ),
    "images of different sizes": (
        *(zip_bytes({"a/1.png": png(), "b/1.png": png((9, 9))}), {"scale": 1}, "different-sizes"),
        "8 × 8 and 9 × 9 pixels; give preprocessing with resize and center_crop",
    ),
    "a second image that cannot be decoded": (
        *(zip_bytes({"a/1.png": png(), "b/1.png": png()[:50]}), {"scale": 1}, "image-damaged"),
        "image 'b/1.png' cannot be decoded",
    ),
}


@pytest.mark.parametrize(("content", "given", "code", "words"), MISFITS.values(), ids=MISFITS)
def test_a_set_that_does_not_fit_the_model_ends_the_sweep(
    service: LiveService, good: dict[str, str], content: bytes, given: dict[str, Any], code: str, words: str
) -> None:
    before = service.kept()
    dataset = service.ready("datasets", content, preprocessing=json.dumps(given))
    assert_ends(service, {"model": good["model"], "dataset": dataset, "metric": {"name": "mse"}}, code, words)
    service.delete(f"/v1/datasets/{dataset}")
    assert service.kept() == before


HOPELESS = {
    "an include that matches nothing": (
        *({"include": ["layer9.*"]}, "pattern-matches-nothing"),
        "include: the pattern 'layer9.*' matches no layer; layers are named like conv",
    ),
    "an exclude that matches nothing": (
        {"exclude": ["Conv"]},
        "pattern-matches-nothing",
        "exclude: the pattern 'Conv'",
    ),
    "an exclude that matches all": ({"exclude": ["*"]}, "no-layers", "leave no layer to measure"),
    "an unknown metric": (
        *({"metric": {"name": "topone"}}, "invalid-input"),
        "metric.name: 'topone' is neither one of top1, top5, mse",
    ),
    "an unknown argument of a metric": (
        *({"metric": {"name": "MulticlassAccuracy", "args": {"classes": 4}}}, "invalid-input"),
        "metric.args: MulticlassAccuracy has no argument 'classes'; it takes num_classes",
    ),
    "a missing argument of a metric": (
        *({"metric": {"name": "Accuracy", "args": {"task": "multiclass"}}}, "invalid-input"),
        "metric.args: Accuracy cannot be made",
    ),
    "a wrong argument of a metric": (
        *({"metric": {"name": "MulticlassAccuracy", "args": {"num_classes": -4}}}, "invalid-input"),
        "larger than 1, but got -4",
    ),
    "an argument of a metric that takes none": ({"metric": {"args": {"k": 1}}}, "invalid-input", "top1 takes none"),
    "a metric of another task": (
        *({"metric": {"name": "MeanSquaredError"}}, "invalid-input"),
        "metric.name: MeanSquaredError does not take predictions (",
    ),
    "an output that is not there": (
        *({"metric": {"output": "z"}}, "invalid-input"),
        "metric.output: the model has no output 'z'; it has y",
    ),
}


@pytest.mark.parametrize(("asked", "code", "words"), HOPELESS.values(), ids=HOPELESS)
def test_a_sweep_that_makes_no_sense_ends_with_the_reason(
    service: LiveService, good: dict[str, str], asked: dict[str, Any], code: str, words: str
) -> None:
    before = service.kept()
    assert_ends(service, {"model": good["model"], "dataset": good["dataset"], **asked}, code, words)
    assert service.kept() == before


def test_a_torchmetrics_metric_on_a_set_without_labels_ends_the_sweep(
    service: LiveService, good: dict[str, str]
) -> None:
    metric = {"name": "MulticlassAccuracy", "args": {"num_classes": 4}}
    asked = {"model": good["model"], "dataset": good["unlabelled"], "metric": metric}
    assert_ends(service, asked, None, "MulticlassAccuracy needs labels and the evaluation set has none")


@pytest.mark.parametrize(("weight", "shape"), [("conv.weight", (16, 3, 3, 3)), ("fc.weight", (4, 16))])
def test_weights_that_are_nan_end_the_sweep(
    service: LiveService, good: dict[str, str], weight: str, shape: tuple[int, ...]
) -> None:
    before = service.kept()
    broken = network(weights={weight: np.full(shape, np.nan, np.float32)})
    model = service.ready("models", broken.SerializeToString())
    assert_ends(service, {"model": model, "dataset": good["dataset"]}, None, "NaN or infinite values")
    service.delete(f"/v1/models/{model}")
    assert service.kept() == before


def assert_ends(service: LiveService, asked: dict[str, Any], code: str | None, words: str) -> None:
    """The sweep fails with this problem, no work of it stays open, and it can be deleted with all it left."""
    sweep = service.sweep(**asked)
    assert sweep["state"] == "failed"
    assert words in sweep["problem"]["message"]
    assert code in (None, sweep["problem"]["code"])
    for path in ("report.json", "report.html", "fallback-layers"):
        assert_problem(service.http.get(f"/v1/sweeps/{sweep['id']}/{path}"), 409, "sweep-failed", words)
    with service.database.read() as session:
        states = [unit.state for unit in session.query(UnitRow).filter(UnitRow.sweep_id == sweep["id"])]
    assert not OPEN_UNITS & set(states)
    service.delete(f"/v1/sweeps/{sweep['id']}")


def test_a_sweep_waits_for_the_check_and_ends_with_what_it_finds(tmp_path: Path) -> None:
    with live_service(tmp_path, with_worker=False) as service:
        bad = service.upload("models", b"\x08\x08\x3a\x05hello").json()
        fine = service.upload("models", MODEL).json()
        dataset = service.upload("datasets", npz()).json()["id"]
        assert (bad["state"], fine["state"]) == ("checking", "checking")
        sweeps = []
        for model in (bad, fine):
            response = service.http.post("/v1/sweeps", json={"model": model["id"], "dataset": dataset})
            assert (response.status_code, response.json()["state"]) == (202, "queued")
            sweeps.append(response.json()["id"])
    with live_service(tmp_path) as service:
        failed, succeeded = (service.ended(each) for each in sweeps)
        assert (failed["state"], failed["problem"]["code"]) == ("failed", "rejected-file")
        assert failed["problem"]["message"].startswith("the model was rejected: this is not an ONNX model")
        assert succeeded["state"] == "succeeded"
