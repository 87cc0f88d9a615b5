"""Calibration caches end to end, through HTTP and a real worker: swept, converted, and back, bit for bit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.cli.connection import own_server
from service.client import ApiProblem, Client
from service.domain.conversion import ConversionSettings
from service.domain.settings import (
    Budget,
    CalibrationSettings,
    SelectionAlgorithm,
    SelectionSettings,
    SweepSettings,
)
from service.inspection.calibration_cache import read_cache
from service.settings import Settings
from tests.real_data import FOLDER, needs_data

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
PATIENCE_SECONDS = 180.0


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with own_server(Settings(data_dir=tmp_path_factory.mktemp("service"))) as connection:
        yield connection.client


@pytest.fixture(scope="module")
def calibrated(client: Client) -> str:
    """A sweep of the example whose ranges are the largest magnitudes of the calibration set."""
    calibration = client.wait_ready(client.upload_dataset(DIGITS / "calib.npz"), timeout=PATIENCE_SECONDS)
    return swept(client, CalibrationSettings(dataset=calibration["id"]))


def swept(client: Client, calibration: CalibrationSettings) -> str:
    model, dataset = client.upload_model(DIGITS / "digits.onnx"), client.upload_dataset(DIGITS / "eval.npz")
    along_the_ranking = SelectionSettings(algorithm=SelectionAlgorithm.GREEDY)  # with every sample in the table
    settings = SweepSettings(
        model=model["id"],
        dataset=dataset["id"],
        calibration=calibration,
        budget=Budget(max_drop=0.01),
        selection=along_the_ranking,
    )
    created = client.create_sweep(settings)
    ended = client.wait(created["id"], timeout=PATIENCE_SECONDS)
    assert ended["state"] == "succeeded", ended["problem"]
    return str(created["id"])


def converted(client: Client, **asked: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    made = client.wait_converted(client.create_conversion(ConversionSettings(**asked)), timeout=PATIENCE_SECONDS)
    return made, {each["name"]: client.conversion_file(made["id"], each["name"]) for each in made["files"]}


def uploaded(client: Client, folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    upload = client.upload_calibration if name.endswith(".cache") else client.upload_model
    return str(upload(folder / name)["id"])


def test_the_cache_of_a_sweep_given_back_measures_exactly_the_same(
    client: Client, calibrated: str, tmp_path: Path
) -> None:
    cache = uploaded(client, tmp_path, "digits.cache", client.artifact(calibrated, "calibration.cache"))
    again = swept(client, CalibrationSettings(cache=cache))
    before, after = (json.loads(client.report(each)) for each in (calibrated, again))
    for report in (before, after):
        for row in report["layers"]:
            del row["amax"], row["statistics"]  # a range is now 127 times a rounded scale: the scale itself is the same
    assert after["layers"] == before["layers"]
    assert after["controls"] == before["controls"]
    assert after["decision"] == before["decision"]
    (reused,) = [each["message"] for each in after["warnings"] if each["code"] == "results-reused"]
    shards = after["cost"]["shards"]
    assert reused.startswith(f"{2 * shards} of {(3 + len(after['layers'])) * shards} ")  # fp32, which has no ranges
    assert client.artifact(again, "mixed.onnx") == client.artifact(calibrated, "mixed.onnx")
    assert after["calibration"]["cache"]["id"] == cache


def test_a_sweeps_cache_becomes_qdq_that_computes_what_all_int8_measured_and_back(
    client: Client, calibrated: str, tmp_path: Path
) -> None:
    content = client.artifact(calibrated, "calibration.cache")
    model = client.upload_model(DIGITS / "digits.onnx")["id"]
    made, files = converted(client, model=model, calibration=uploaded(client, tmp_path, "digits.cache", content))
    assert (made["summary"]["left_float"], made["summary"]["unused"]) == (0, 0)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(files["qdq.onnx"], options)
    samples = np.load(DIGITS / "eval.npz")
    inputs = {session.get_inputs()[0].name: samples[next(name for name in samples if name != "labels")]}
    top1 = float((session.run(None, inputs)[0].argmax(axis=1) == samples["labels"]).mean())
    report = json.loads(client.report(calibrated))
    assert top1 == pytest.approx(report["controls"]["all_int8"]["metric"]["value"], abs=1e-12)
    _, back = converted(client, model=uploaded(client, tmp_path, "qdq.onnx", files["qdq.onnx"]))
    assert back["calibration.cache"] == content


def reading_every_tensor(names: list[str]) -> bytes:
    """A chain of products of 2 × 2 matrices whose activations have these names."""
    weight = onnx.numpy_helper.from_array(np.float32([[1, 0.5], [-0.25, 1]]), "the weight")
    nodes = [
        onnx.helper.make_node("MatMul", [source, weight.name], [result])
        for source, result in zip(names, [*names[1:], "the result"], strict=True)
    ]
    ends = [
        onnx.helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, ["n", 2]) for each in (names[0], "the result")
    ]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    content: bytes = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8
    ).SerializeToString()
    return content


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", ["inception_v1", "mobilenet_v2", "resnet50", "vgg16"])
def test_caches_that_tensorrt_wrote_go_to_qdq_and_back_byte_for_byte(client: Client, name: str, tmp_path: Path) -> None:
    content = (FOLDER / "tensorrt_caches" / f"{name}.cache").read_bytes()
    cache = read_cache(content)
    model = reading_every_tensor([each.tensor for each in cache.entries])
    plain = uploaded(client, tmp_path, "plain.onnx", model)
    made, files = converted(client, model=plain, calibration=uploaded(client, tmp_path, "real.cache", content))
    assert made["summary"]["int8"] == len(cache.entries)
    qdq = uploaded(client, tmp_path, "qdq.onnx", files["qdq.onnx"])
    _, back = converted(client, model=qdq, algorithm=cache.algorithm, tensorrt_version=cache.version)
    assert back["calibration.cache"] == content


def test_the_cache_of_another_model_is_a_problem_that_names_what_it_lacks(client: Client, tmp_path: Path) -> None:
    cache = uploaded(client, tmp_path, "other.cache", b"TRT-8510-EntropyCalibration2\ndata: 3caa54fc\n")
    model = client.upload_model(DIGITS / "digits.onnx")["id"]
    with pytest.raises(ApiProblem, match=r"none of the model's .* layers; .* no entry for the tensor"):
        converted(client, model=model, calibration=cache)
