"""What folding batch norms changes is measured on the model itself, in both backends, and is in the report."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from service.domain.states import SweepState
from tests.workers.installation import Installation, npz_bytes
from tests.workers.models.torch_networks import save
from workers.sweep.folding import compare, warnings

SAMPLES = 12


class Network(nn.Module):
    """A convolution whose mean of this size the batch norm takes away again, and a linear layer."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8 * 36, 3)
        with torch.no_grad():
            assert self.conv.bias is not None
            self.conv.bias += mean
            self.norm.running_mean += mean  # type: ignore[operator]
            self.norm.running_var *= 0.5  # type: ignore[operator]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))
        return out


def onnx_bytes(module: Network) -> bytes:
    """The same network as an ONNX graph that holds its batch norm."""
    text = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[N,3,6,6] x) => (float[N,3] output)
    { [conv] c = Conv <pads = [1,1,1,1]> (x, conv.weight, conv.bias)
      n = BatchNormalization (c, norm.weight, norm.bias, norm.running_mean, norm.running_var)
      r = Relu(n)
      f = Flatten(r)
      [fc] output = Gemm <transB = 1> (f, fc.weight, fc.bias) }"""
    values = {name: each for name, each in module.state_dict().items() if each.ndim}
    for name in values:  # the parser takes no dots
        text = text.replace(name, name.replace(".", "_"))
    model = onnx.parser.parse_model(text)
    for name, each in values.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(each.numpy(), name.replace(".", "_")))
    return bytes(model.SerializeToString())


def uploaded(installation: Installation, backend: str, folder: Path, mean: float = 0.0) -> dict[str, str]:
    module = Network(mean)
    if backend == "onnxruntime":
        return {"backend": backend, "model": installation.model(onnx_bytes(module.eval()))}
    path = save(module, (torch.zeros(2, 3, 6, 6),), folder / "m.pt2", dynamic=True)
    return {"backend": backend, "model": installation.model(path.read_bytes(), "pt2")}


def swept(installation: Installation, **settings: Any) -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=(SAMPLES, 3, 6, 6)).astype(np.float32)
    dataset = installation.dataset(npz_bytes(x=x))
    sweep_id = installation.sweep(dataset=dataset, budget=None, **settings)
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED, installation.row(sweep_id).problem
    return installation.report(sweep_id)


def codes(report: dict[str, Any]) -> set[str]:
    return {each["code"] for each in report["warnings"]}


backends = pytest.mark.parametrize("backend", ["onnxruntime", "torch"])


@backends
def test_folding_is_measured_against_the_model_as_it_is(
    installation: Installation, tmp_path: Path, backend: str
) -> None:
    report = swept(installation, **uploaded(installation, backend, tmp_path))
    assert report["model"]["folded_batch_norms"] == 1
    found = report["model"]["folding_difference"]
    assert (found["samples"], found["reason"]) == (8, None)
    # float32 rounds differently, and no more than that
    assert 0 < found["relative_rms"] < 1e-6
    assert 0 < found["max_abs"] < 1e-5
    assert "folding-changes-outputs" not in codes(report)


@backends
def test_a_folding_that_moves_the_outputs_is_warned_of(
    installation: Installation, tmp_path: Path, backend: str
) -> None:
    """A mean of 30,000 leaves seven digits to the convolution, of which the norm takes five away."""
    report = swept(installation, **uploaded(installation, backend, tmp_path, mean=3e4))
    assert report["model"]["folding_difference"]["relative_rms"] > 1e-4
    assert "folding-changes-outputs" in codes(report)


@backends
def test_a_sweep_without_folding_has_nothing_to_compare(
    installation: Installation, tmp_path: Path, backend: str
) -> None:
    report = swept(installation, fuse_bn=False, **uploaded(installation, backend, tmp_path, mean=3e4))
    assert report["model"]["folded_batch_norms"] == 0
    assert report["model"]["folding_difference"] is None
    assert "folding-changes-outputs" not in codes(report)


def test_a_model_without_batch_norms_has_nothing_to_compare(installation: Installation) -> None:
    sweep_id = installation.sweep()
    installation.run_until()
    assert installation.report(sweep_id)["model"]["folding_difference"] is None


def test_the_output_that_differs_most_counts() -> None:
    expected = {"a": np.array([1.0, 1.0]), "b": np.array([0.0, 4.0]), "class": np.array([1, 2])}
    found = {"a": np.array([1.0, 1.0]), "b": np.array([0.0, 4.5]), "class": np.array([2, 2])}
    difference = compare(found, expected, samples=2)
    assert (difference.max_abs, difference.relative_rms) == (0.5, 0.125)


def test_outputs_that_are_finite_in_one_of_the_two_have_no_difference_but_a_reason() -> None:
    difference = compare({"y": np.array([np.nan])}, {"y": np.array([1.0])}, samples=1)
    assert (difference.max_abs, difference.relative_rms) == (None, None)
    (warning,) = warnings(difference)
    assert warning["code"] == "folding-not-compared"
    assert "finite" in warning["message"]
