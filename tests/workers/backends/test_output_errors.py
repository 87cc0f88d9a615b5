"""What int8 does to each layer's own output: both backends against fake quantization written out in NumPy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from service.domain.layers import controls
from tests.workers.backends.ranges import calibrated
from tests.workers.models import torch_networks
from workers.backends.onnxruntime import OnnxRuntimeBackend
from workers.backends.protocol import OpenedModel, OpenSettings
from workers.backends.torch_fake_quant import TorchBackend

RNG = np.random.default_rng(0)
A, B = (RNG.standard_normal(shape).astype(np.float32) for shape in ((4, 4), (4, 3)))


class Skip(nn.Module):
    """A linear layer, a residual Add around it, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4, bias=False), nn.Linear(4, 3, bias=False)
        self.first.weight.data, self.last.weight.data = torch.from_numpy(A.T.copy()), torch.from_numpy(B.T.copy())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.last(torch.relu(self.first(x)) + x)
        assert isinstance(found, torch.Tensor)
        return found


def listed(array: np.ndarray) -> str:
    return ",".join(f"{value:.9g}" for value in array.ravel())


def with_onnxruntime(folder: Path, batch: int | None = None, opset: int = 18, first: np.ndarray = A) -> OpenedModel:
    size = batch or "n"
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[{size},4] x) => (float[{size},3] y) <float[4,4] a = {{{listed(first)}}}, float[4,3] b = {{{listed(B)}}}>
    {{ [first] h = MatMul(x, a)
      r = Relu(h)
      [add] s = Add(r, x)
      [last] y = MatMul(s, b) }}"""
    path = folder / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return OnnxRuntimeBackend().open(path, OpenSettings())


def with_torch(folder: Path, batch: int | None = None) -> OpenedModel:
    path = torch_networks.save(Skip(), (torch.zeros(batch or 8, 4),), folder / "m.pt2", dynamic=batch is None)
    return TorchBackend().open(path, OpenSettings())


Open = Callable[..., OpenedModel]
both = pytest.mark.parametrize("open_", [with_onnxruntime, with_torch], ids=["onnxruntime", "torch"])


def fake(values: np.ndarray, amax: Any) -> np.ndarray:
    scale = np.asarray(amax, dtype=np.float64) / 127
    return np.clip(np.round(values.astype(np.float64) / scale), -128, 127) * scale


def energies(x: np.ndarray, ranges: np.ndarray) -> list[tuple[float, float]]:
    """(Σ a², Σ (a_int8 − a)²) of the three layers, each from fp32 inputs. ``ranges``: the samples of the ranges."""

    def layers(values: np.ndarray) -> tuple[list[Any], list[np.ndarray]]:
        values = values.astype(np.float64)
        h = values @ A
        s = np.maximum(h, 0) + values
        return [values, (np.maximum(h, 0), values), s], [h, s, s @ B]

    (seen, (seen_left, seen_right), seen_sum), _ = layers(ranges)
    (x, (left, right), s), outputs = layers(x)
    weights = [fake(each, np.abs(each).max(axis=0)) for each in (A, B)]
    int8 = [
        fake(x, np.abs(seen).max()) @ weights[0],
        fake(left, np.abs(seen_left).max()) + fake(right, np.abs(seen_right).max()),
        fake(s, np.abs(seen_sum).max()) @ weights[1],
    ]
    return [
        (float((each**2).sum()), float(((other - each) ** 2).sum())) for each, other in zip(outputs, int8, strict=True)
    ]


def measured(model: OpenedModel, *batches: np.ndarray) -> list[list[tuple[float, float]]]:
    ids = [each.id for each in model.facts.layers]
    found = list(model.output_errors([{"x": each} for each in batches], ids))
    assert not [error.failure for each in found for error in each.values() if error.failure]
    return [[(each[layer].signal, each[layer].noise) for layer in ids] for each in found]


@both
def test_every_layer_is_measured_from_fp32_inputs_whatever_the_others_would_do(tmp_path: Path, open_: Open) -> None:
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    model = calibrated(open_(tmp_path), {"x": x})
    (found,) = measured(model, x)
    # the error is the difference of two float32 numbers of size 1, itself about 1e-2
    np.testing.assert_allclose(found, energies(x, x), rtol=1e-4)


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_any_opset_gives_the_same(tmp_path: Path, opset: int) -> None:
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    (found,) = measured(calibrated(with_onnxruntime(tmp_path, opset=opset), {"x": x}), x)
    np.testing.assert_allclose(found, energies(x, x), rtol=1e-4)


@both
def test_each_batch_has_its_own_sums(tmp_path: Path, open_: Open) -> None:
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    model = calibrated(open_(tmp_path), {"x": x})
    (whole,) = measured(model, x)
    np.testing.assert_allclose(np.sum(measured(model, x[:5], x[5:]), axis=0), whole, rtol=1e-5)


@both
def test_samples_that_only_fill_a_fixed_batch_do_not_count(tmp_path: Path, open_: Open) -> None:
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    model = calibrated(open_(tmp_path, batch=8), {"x": x})
    (found,) = measured(model, x[:3])
    np.testing.assert_allclose(found, energies(x[:3], x), rtol=1e-4)


@both
def test_outputs_are_what_they_were(tmp_path: Path, open_: Open) -> None:
    """The quantizers are off again afterwards, and the ranges stay."""
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    model = calibrated(open_(tmp_path), {"x": x})

    def outputs() -> list[np.ndarray]:
        done = model.evaluate([{"x": x}], controls(each.id for each in model.facts.layers))
        return [np.concatenate([*each.outputs.values()]) for each in sorted(done, key=lambda each: each.variant.name)]

    before = outputs()
    measured(model, x)
    np.testing.assert_array_equal(outputs(), before)


@both
def test_only_the_layers_that_are_asked_for_are_measured(tmp_path: Path, open_: Open) -> None:
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    model = calibrated(open_(tmp_path), {"x": x})
    last = model.facts.layers[-1].id
    (found,) = model.output_errors([{"x": x}], [last])
    assert set(found) == {last}
    assert list(model.output_errors([{"x": x}], [])) == [{}]


@both
def test_the_weight_is_that_of_the_file(tmp_path: Path, open_: Open) -> None:
    model = open_(tmp_path)
    first, add, last = (model.weight(each.id) for each in model.facts.layers)
    assert add is None
    assert first is not None
    assert last is not None
    np.testing.assert_array_equal(np.sort(first, axis=None), np.sort(A, axis=None))
    np.testing.assert_array_equal(np.sort(last, axis=None), np.sort(B, axis=None))


@both
def test_samples_that_the_model_does_not_take_are_a_reason_and_no_exception(tmp_path: Path, open_: Open) -> None:
    """A by-product: what fails here must not end a sweep."""
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    model = calibrated(open_(tmp_path), {"x": x})
    (found,) = model.output_errors([{"x": x[:, :2]}], [model.facts.layers[-1].id])
    assert all(error.failure for error in found.values())


def test_a_broken_weight_is_its_own_layers_reason_alone(tmp_path: Path) -> None:
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    broken = A.copy()
    broken[1, 1] = np.nan
    module = Skip()
    module.first.weight.data = torch.from_numpy(broken.T.copy())
    path = torch_networks.save(module, (torch.zeros(8, 4),), tmp_path / "m.pt2")
    for model in (TorchBackend().open(path, OpenSettings()), with_onnxruntime(tmp_path, first=broken)):
        model.set_amax({edge: 1.0 for layer in model.facts.layers for edge in layer.activations})
        (found,) = model.output_errors([{"x": x}], [each.id for each in model.facts.layers])
        failures = [found[each.id].failure for each in model.facts.layers]
        assert failures == ["its weight holds NaN or infinite values", None, None]
