import io
import zipfile

import numpy as np
import pytest

from service.domain.states import ResourceState, SweepState, UnitState
from service.store import resources
from service.store.tables import ModelRow
from tests.workers.installation import Installation, npz_bytes, onnx_bytes


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_good_model_is_ready_and_says_what_it_holds(installation: Installation) -> None:
    model = installation.model()
    installation.step()
    row = installation.resource(model)
    assert (row.state, row.problem) == (ResourceState.READY, None)
    assert row.info["layer_names"] == ["first", "second"]
    assert [each["name"] for each in row.info["inputs"]] == ["x"]
    assert [each["name"] for each in row.info["outputs"]] == ["scores"]
    assert row.info["macs"] == 5 * 4 + 3 * 5
    assert row.info["weight_bytes"] == 4 * row.info["macs"]


def test_a_good_evaluation_set_is_ready_and_says_what_it_holds(installation: Installation) -> None:
    labels = np.array([0, 1, 1, 2])
    dataset = installation.dataset(npz_bytes(x=np.zeros((4, 4), np.float32), labels=labels))
    installation.step()
    row = installation.resource(dataset)
    assert (row.state, row.problem) == (ResourceState.READY, None)
    assert (row.info["samples"], row.info["has_labels"]) == (4, True)
    assert row.info["arrays"] == {"x": {"shape": [4], "dtype": "float32"}}
    assert row.info["class_counts"] == {"0": 1, "1": 2, "2": 1}


CUT = onnx_bytes()[:-40]
NO_LAYER = onnx_bytes("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
UNKNOWN_OP = onnx_bytes("g (float[N,4] x) => (float[N,4] y) { y = NoSuchOperation(x) }")
MISFIT = onnx_bytes("g (float[N,4] x) => (float[N,3] y) <float[2,2] w = {1,2,3,4}> { y = MatMul(x, w) }")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no model at all", "ONNX"),
        (CUT, "ONNX"),
        (NO_LAYER, "the model has no quantizable layer"),
        (UNKNOWN_OP, "NoSuchOperation"),
        (MISFIT, "Incompatible dimensions"),
    ],
    ids=["other bytes", "cut off", "no layer", "unknown operation", "shapes that do not fit"],
)
def test_a_bad_model_is_rejected_with_the_reason(installation: Installation, content: bytes, reason: str) -> None:
    model = installation.model(content)
    lease = installation.step()
    row = installation.resource(model)
    assert row.state == ResourceState.REJECTED
    assert row.problem is not None
    assert reason in row.problem
    assert lease is not None
    assert installation.unit(lease).state == UnitState.DONE, "a verdict is no failed attempt"


OBJECTS = npz_bytes(x=np.array([{"a": 1}, None], dtype=object))
UNEQUAL = npz_bytes(x=np.zeros((4, 4), np.float32), labels=np.zeros(3, np.int64))


@pytest.mark.parametrize(
    ("content", "format", "reason"),
    [
        (npz_bytes()[:-60], "npz", "zip"),
        (OBJECTS, "npz", "object"),
        (UNEQUAL, "npz", "labels"),
        (zipped({"cat/1.png": b"no image", "dog/1.png": b"nor this"}), "image_zip", "cat/1.png"),
    ],
    ids=["cut off", "objects", "arrays of different length", "an image that cannot be decoded"],
)
def test_a_bad_evaluation_set_is_rejected_with_the_reason(
    installation: Installation, content: bytes, format: str, reason: str
) -> None:
    dataset = installation.dataset(content, format)
    installation.step()
    row = installation.resource(dataset)
    assert row.state == ResourceState.REJECTED
    assert row.problem is not None
    assert reason in row.problem


def test_a_sweep_begins_when_the_last_of_its_uploads_is_checked(installation: Installation) -> None:
    sweep_id = installation.sweep(calibration={"dataset": installation.dataset(npz_bytes(seed=1))})
    for _ in range(3):
        assert installation.unit_states(sweep_id)["prepare"] == {UnitState.WAITING}
        installation.hints()
        installation.step()
    assert installation.unit_states(sweep_id)["prepare"] == {UnitState.QUEUED}
    assert installation.hints() == ["onnxruntime"]


def test_a_sweep_on_a_rejected_upload_fails_with_its_reason_and_one_on_others_does_not(
    installation: Installation,
) -> None:
    bad = installation.dataset(UNEQUAL)
    doomed, healthy = installation.sweep(dataset=bad), installation.sweep()
    installation.run_until()
    row = installation.row(doomed)
    assert (row.state, row.problem_code) == (SweepState.FAILED, "rejected-file")
    assert row.problem == f"the evaluation set was rejected: {installation.resource(bad).problem}"
    assert installation.unit_states(doomed) == {"prepare": {UnitState.FAILED}}
    assert installation.state(healthy) is SweepState.SUCCEEDED


def test_an_upload_that_was_deleted_meanwhile_is_no_error(installation: Installation) -> None:
    model = installation.model()
    lease = installation.claim()
    assert lease is not None
    with installation.context.database.write() as session:
        resources.remove(session, ModelRow, model)
    before = installation.everything()
    installation.run(lease)
    assert installation.everything() == before
