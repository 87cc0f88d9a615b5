"""Which files a sweep leaves for other tools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.domain.settings import BackendName
from service.domain.states import SweepState
from service.store import sweeps
from tests.workers.installation import Installation, npz_bytes
from tests.workers.models import torch_networks as networks

REPORT = {"report.json", "report.html", "layers.csv", "fallback_layers.json"}


def artifacts(installation: Installation, sweep_id: str) -> dict[str, bytes]:
    assert installation.state(sweep_id) is SweepState.SUCCEEDED, installation.row(sweep_id).problem
    with installation.context.database.read() as session:
        rows = sweeps.artifacts(session, sweep_id)
    return {row.name: installation.context.blobs.read(row.sha256) for row in rows}


def test_an_onnx_model_leaves_the_files_of_tools_that_take_onnx(installation: Installation) -> None:
    sweep_id = installation.sweep(budget={"max_drop": 100.0}, exclude=["first"])
    installation.run_until()
    found = artifacts(installation, sweep_id)
    assert found.keys() - REPORT == {
        *("trtexec.txt", "polygraphy_script.py", "onnxruntime.json", "names.json"),
        *("mixed.onnx", "mixed.json", "calibration.cache"),
    }
    arguments = json.loads(found["onnxruntime.json"])["quantize_static"]
    assert arguments["nodes_to_exclude"] == ["first"]  # excluded layers stay in floating point too
    assert arguments["nodes_to_quantize"] == ["second"]
    assert b"--layerPrecisions=first:fp32" in found["trtexec.txt"]
    assert b"'first'" in found["polygraphy_script.py"]


def test_fallback_layers_have_the_precision_that_the_sweep_was_asked_for(installation: Installation) -> None:
    sweep_id = installation.sweep(budget={"max_drop": 100.0}, exclude=["first"], fallback_precision="fp16")
    installation.run_until()
    found = artifacts(installation, sweep_id)
    assert b"--layerPrecisions=first:fp16" in found["trtexec.txt"]
    assert b"trt.float16" in found["polygraphy_script.py"]


def test_weights_by_tensor_are_so_in_the_files_too(installation: Installation) -> None:
    sweep_id = installation.sweep(budget={"max_drop": 100.0}, weights="per_tensor")
    installation.run_until()
    document = json.loads(artifacts(installation, sweep_id)["onnxruntime.json"])
    assert document["quantize_static"]["per_channel"] is False


def test_a_decision_that_leaves_nothing_in_int8_leaves_no_files(installation: Installation) -> None:
    sweep_id = installation.sweep()
    installation.run_until()
    found = artifacts(installation, sweep_id)
    assert json.loads(found["fallback_layers.json"])["status"] == "not_met"
    assert found.keys() == REPORT


def test_a_torch_model_leaves_the_files_of_tools_that_take_modules(installation: Installation, tmp_path: Path) -> None:
    path = networks.save(networks.ConvNet(), (torch.randn(2, 3, 8, 8),), tmp_path / "model.pt2", dynamic=True)
    x = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)
    settings: dict[str, Any] = {"metric": {"name": "mse"}, "budget": {"max_drop": 100.0}, "exclude": ["conv2"]}
    files = {"model": installation.model(path.read_bytes(), "pt2"), "dataset": installation.dataset(npz_bytes(x=x))}
    sweep_id = installation.sweep(backend=BackendName.TORCH, **files, **settings)
    installation.run_until()
    found = artifacts(installation, sweep_id)
    assert found.keys() - REPORT == {"pytorch_quantization.py", "modelopt.py", "names.json"}
    assert b"'conv2._weight_quantizer'" in found["pytorch_quantization.py"]
    assert b"'conv1.weight_quantizer'" in found["modelopt.py"]
    names = json.loads(found["names.json"])
    assert {each["name"] for each in names["layers"]} == {"conv1", "conv2", "add", "avg_pool", "fc"}
    assert names["layers_without_node"] == []
