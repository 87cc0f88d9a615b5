"""The same network as ONNX and as torch.export: the same layers under the same names. Needs the real models."""

import os
from pathlib import Path

import numpy as np
import pytest

from service.domain.layers import FP32, Variant, controls
from tests.workers.backends.ranges import calibrated
from workers.backends.onnxruntime import OnnxRuntimeBackend
from workers.backends.protocol import OpenedModel, OpenSettings

DATA = Path(os.environ.get("QUANTSIEVE_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
LAYERS = {"cifar10_resnet20": 30, "cifar10_resnet56": 84, "vww_mobilenet": 29, "kws_transformer": 122}

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no models in {DATA}; set QUANTSIEVE_TEST_DATA"),
]


def onnx_model(name: str) -> OpenedModel:
    return OnnxRuntimeBackend().open(DATA / name / "model.onnx", OpenSettings())


@pytest.mark.parametrize(("name", "layers"), LAYERS.items(), ids=LAYERS.keys())
def test_both_formats_have_the_same_layers(name: str, layers: int) -> None:
    pytest.importorskip("pytorch_quantization")
    from workers.backends.torch_fake_quant import TorchBackend

    first = onnx_model(name).facts
    second = TorchBackend().open(DATA / name / "model.pt2", OpenSettings()).facts
    assert len(first.layers) == layers
    compared = ("name", "op", "output_shape", "macs", "weight_bytes")
    for ours, theirs in zip(first.layers, second.layers, strict=True):
        assert [getattr(ours, each) for each in compared] == [getattr(theirs, each) for each in compared]
        edges = [[edge.rpartition(":")[2] for edge in each.activations] for each in (ours, theirs)]
        assert len(edges[0]) == len(edges[1])


def test_all_int8_keeps_the_accuracy_of_resnet20_and_fp32_repeats_bit_for_bit() -> None:
    model = onnx_model("cifar10_resnet20")
    images, labels = (np.load(DATA / "cifar10" / "eval.npz")[key][:512] for key in ("inputs", "labels"))
    calibrated(model, {"input": np.load(DATA / "cifar10" / "calib.npz")["inputs"]})
    logits = {
        done.variant.name: done.outputs["logits"]
        for done in model.evaluate([{"input": images}], controls(each.id for each in model.facts.layers))
    }
    assert np.array_equal(logits["fp32"], logits["fp32_repeated"])
    accuracy = {name: float((each.argmax(1) == labels).mean()) for name, each in logits.items()}
    # int8 with max calibration costs this network about half a percent; 512 images have a step of 0.2 %
    assert abs(accuracy["fp32"] - accuracy["all_int8"]) < 0.03


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_alone_changes_the_output_a_little_and_not_more(name: str) -> None:
    model = onnx_model(name)
    spec = model.facts.inputs[0]
    x = np.random.default_rng(0).normal(size=(2, *spec.shape[1:])).astype(np.float32)
    calibrated(model, {spec.name: x})
    chosen = model.facts.layers[:: max(1, len(model.facts.layers) // 10)]
    variants = [controls([])[0], *(Variant(name=each.id, int8=frozenset({each.id})) for each in chosen)]
    output = model.facts.outputs[0].name
    found = {done.variant.name: done.outputs[output] for done in model.evaluate([{spec.name: x}], variants)}
    fp32 = found.pop(FP32)
    assert len(found) == len(chosen)
    for each in found.values():
        error = np.square(each - fp32).mean() / np.square(fp32).mean()
        assert 0 < error < 0.05
