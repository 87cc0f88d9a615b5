"""Real networks on real data, through HTTP, on both backends and in both modes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from scipy.stats import spearmanr

from service.cli.connection import own_server
from service.client import Client
from service.domain.settings import (
    Budget,
    CalibrationSettings,
    MetricSettings,
    SelectionAlgorithm,
    SelectionSettings,
    SweepSettings,
)
from service.settings import Settings
from tests.real_data import MODELS, TRANSFORMER, RealModel, needs_data

pytestmark = needs_data

# all samples of the large ones in every combination, and a session for each layer in each of many shards, would take
# the test run many minutes
FEW = {"cifar10_resnet20": {"samples": 96, "shard_size": 48}, "kws_transformer": {"samples": 16, "shard_size": 16}}
ids = pytest.mark.parametrize("model", MODELS, ids=[each.folder for each in MODELS])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("service"))
    with own_server(settings) as connection:
        yield connection.client


@pytest.fixture(scope="module")
def sweep(client: Client) -> Any:
    done: dict[tuple[str, str, str], dict[str, Any]] = {}

    def run(model: RealModel, backend: str, mode: str) -> dict[str, Any]:
        key = (model.folder, backend, mode)
        if key not in done:
            done[key] = run_sweep(client, model, backend, mode=mode, **FEW.get(model.folder, {}))
        return done[key]

    return run


def run_sweep(client: Client, model: RealModel, backend: str, **settings: Any) -> dict[str, Any]:
    uploaded = client.wait_ready(client.upload_model(model.file(backend)))
    dataset = client.wait_ready(client.upload_dataset(model.evaluation))
    calibration = client.wait_ready(client.upload_dataset(model.calibration))
    created = client.create_sweep(
        SweepSettings(
            model=uploaded["id"],
            dataset=dataset["id"],
            backend=backend,
            calibration=CalibrationSettings(dataset=calibration["id"]),
            metric=MetricSettings(name="top1"),
            budget=Budget(max_drop=0.02),
            selection=SelectionSettings(algorithm=SelectionAlgorithm.GREEDY),  # with every sample in the table
            **settings,
        )
    )
    final = client.wait(created["id"], lambda document: None)
    assert final["state"] == "succeeded", final["problem"]
    report: dict[str, Any] = json.loads(client.report(created["id"], "json"))
    return report


# the transformer's 122 layers are measured in one mode: the other costs a minute and shows nothing new
TABLES = [
    pytest.param(model, backend, mode, id=f"{model.folder}-{backend}-{mode}")
    for model in MODELS
    for backend in ("torch", "onnxruntime")
    for mode in ("one_on", "one_off")
    if mode == "one_on" or model is not TRANSFORMER
]


@pytest.mark.parametrize(("model", "backend", "mode"), TABLES)
def test_the_table_is_complete(sweep: Any, model: RealModel, backend: str, mode: str) -> None:
    report = sweep(model, backend, mode)
    assert len(report["layers"]) == model.layers
    assert {each["state"] for each in report["layers"]} == {"measured"}
    assert set(report["controls"]) == {"fp32", "fp32_repeated", "all_int8"}
    assert report["controls"]["fp32_repeated"]["measures"]["mse"]["value"] == 0.0
    assert sorted(each["rank"] for each in report["layers"]) == list(range(1, model.layers + 1))
    assert report["decision"]["status"] == "met"


@ids
def test_the_backends_agree_on_the_layers_that_they_share(sweep: Any, model: RealModel) -> None:
    torch, onnx = (mse_by_name(sweep(model, backend, "one_on")) for backend in ("torch", "onnxruntime"))
    shared = sorted(set(torch) & set(onnx))
    assert len(shared) == model.layers
    assert spearmanr([torch[each] for each in shared], [onnx[each] for each in shared])[0] >= 0.95


@ids
def test_fp32_top1_is_the_figure_of_the_datas_readme(client: Client, model: RealModel) -> None:
    name = "fc" if model.folder == "vww_mobilenet" else "linear" if "resnet" in model.folder else "head"
    for backend in ("torch", "onnxruntime"):
        report = run_sweep(client, model, backend, include=(name,))
        assert report["controls"]["fp32"]["metric"]["value"] == pytest.approx(model.fp32_top1, abs=5e-5)


def mse_by_name(report: dict[str, Any]) -> dict[str, float]:
    return {each["layer"]["name"]: each["score"]["measures"]["mse"]["value"] for each in report["layers"]}
