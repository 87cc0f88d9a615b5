"""Both backends, given the same scales, measure the same damage, layer by layer, on one network in both formats."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from service.domain.layers import FP32, Variant
from service.domain.settings import WeightGranularity
from tests.real_data import MOBILENET, RESNET20, needs_data
from workers.backends.onnxruntime import OnnxRuntimeBackend
from workers.backends.protocol import Array, OpenedModel, OpenSettings

pytest.importorskip("pytorch_quantization")
from workers.backends.torch_fake_quant import TorchBackend

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
SAMPLES = 64
TOLERANCE = 0.02
"""Of a layer's output MSE: values on the edge of two levels may fall either way, which moved no layer by over 0.3 %."""

FILES = {
    "digits": (DIGITS / "digits.onnx", DIGITS / "digits.pt2", DIGITS / "calib.npz", DIGITS / "eval.npz"),
    **{
        each.folder: (each.file("onnxruntime"), each.file("torch"), each.calibration, each.evaluation)
        for each in (RESNET20, MOBILENET)
    },
}
CASES = [
    pytest.param(*files, granularity, id=f"{name}-{granularity}", marks=[] if name == "digits" else needs_data)
    for name, files in FILES.items()
    for granularity in WeightGranularity
]


@pytest.mark.parametrize(("onnx", "pt2", "calibration", "evaluation", "weights"), CASES)
def test_every_layers_output_mse_is_the_same_within_two_per_cent(
    onnx: Path, pt2: Path, calibration: Path, evaluation: Path, weights: WeightGranularity
) -> None:
    settings = OpenSettings(weights=weights)
    ours, theirs = OnnxRuntimeBackend().open(onnx, settings), TorchBackend().open(pt2, settings)
    amax = ranges(ours, first_samples(calibration))
    ours.set_amax(amax)
    theirs.set_amax(by_position(ours, theirs, amax))
    x = first_samples(evaluation)
    expected, found = output_mse(theirs, x), output_mse(ours, x)
    assert len(expected) == len(ours.facts.layers)
    assert min(expected) > 0
    assert found == pytest.approx(expected, rel=TOLERANCE)


def first_samples(path: Path) -> Array:
    arrays = np.load(path)
    (name,) = (each for each in arrays.files if each != "labels")
    found: Array = arrays[name][:SAMPLES]
    return found


def ranges(model: OpenedModel, x: Array) -> dict[str, float]:
    amax: dict[str, float] = {}

    def see(edge: str, tensor: Array) -> None:
        amax[edge] = max(amax.get(edge, 0.0), float(np.abs(tensor).max()))

    model.observe([{model.facts.inputs[0].name: x}], see)
    return amax


def by_position(ours: OpenedModel, theirs: OpenedModel, amax: Mapping[str, float]) -> dict[str, float]:
    """The ranges under the other format's names: layers stand in the same order, and so do their operands."""
    pairs = list(zip(ours.facts.layers, theirs.facts.layers, strict=True))
    assert [(one.op, one.macs) for one, _ in pairs] == [(other.op, other.macs) for _, other in pairs]
    return {
        theirs_edge: amax[our_edge]
        for one, other in pairs
        for our_edge, theirs_edge in zip(one.activations, other.activations, strict=True)
    }


def output_mse(model: OpenedModel, x: Array) -> list[float]:
    """Of each layer alone in int8, in the model's order."""
    layers = [each.id for each in model.facts.layers]
    variants = [Variant(name=FP32, int8=frozenset())]
    variants += [Variant(name=each, int8=frozenset({each})) for each in layers]
    outputs = {
        done.variant.name: np.asarray(next(iter((done.outputs or {}).values()))).astype(np.float64)
        for done in model.evaluate([{model.facts.inputs[0].name: x}], variants)
    }
    return [float(np.square(outputs[each] - outputs[FP32]).mean()) for each in layers]
