"""The methods on what really flows through networks: the digits network, and a MobileNet that entropy ruins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_quantization.calib import HistogramCalibrator

from service.domain.layers import Variant
from service.domain.settings import CalibrationMethod, CalibrationSettings
from tests.real_data import MOBILENET, needs_data
from tests.workers.calibration import literal
from workers.backends.onnxruntime import OnnxModel, OnnxRuntimeBackend
from workers.backends.protocol import OpenSettings
from workers.calibration.divergence import divergences
from workers.calibration.entropy import entropy
from workers.calibration.histogram import Grid, Histogram
from workers.calibration.methods import amax
from workers.calibration.mse import mse

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


def opened(path: Path) -> OnnxModel:
    return OnnxRuntimeBackend().open(path, OpenSettings())


def batches_of(model: OnnxModel, samples: Any, size: int) -> list[dict[str, Any]]:
    name = model.facts.inputs[0].name
    return [{name: samples[start : start + size]} for start in range(0, len(samples), size)]


def histograms_of(model: OnnxModel, samples: Any, size: int) -> dict[str, Histogram]:
    found: dict[str, Histogram] = {}

    def observe(edge: str, tensor: Any) -> None:
        if edge not in found:
            found[edge] = Histogram(Grid.of(tensor))
        found[edge].update(tensor)

    model.observe(batches_of(model, samples, size), observe)
    return found


@pytest.fixture(scope="module")
def digits() -> tuple[OnnxModel, Any]:
    return opened(DIGITS / "digits.onnx"), np.load(DIGITS / "calib.npz")["inputs"]


def test_an_edge_of_the_digits_network_has_pytorch_quantizations_ranges(digits: tuple[OnnxModel, Any]) -> None:
    """Two batches, the second with larger values: the edge whose range grows least, for the sake of time."""
    model, samples = digits
    seen: dict[str, list[Any]] = {}
    model.observe(batches_of(model, samples, 128), lambda edge, x: seen.setdefault(edge, []).append(x.copy()))
    histograms = histograms_of(model, samples, 128)
    edge = min((each for each in seen if len(histograms[each].counts) > 2048), key=lambda e: len(histograms[e].counts))
    calibrator = HistogramCalibrator(8, None, False)
    for each in seen[edge]:
        calibrator.collect(torch.from_numpy(each))
    assert entropy(histograms[edge]) == pytest.approx(float(calibrator.compute_amax("entropy")), rel=1e-6)
    for percentile in (99.0, 99.9, 99.99):
        settings = CalibrationSettings(method=CalibrationMethod.PERCENTILE, percentile=percentile)
        theirs = float(calibrator.compute_amax("percentile", percentile=percentile))
        assert amax(histograms[edge], settings) == pytest.approx(theirs, rel=1e-6)


def test_every_edge_of_the_digits_network_has_the_literal_divergences_and_errors(
    digits: tuple[OnnxModel, Any],
) -> None:
    for histogram in histograms_of(*digits, size=64).values():
        counts = histogram.counts
        ranges = np.arange(128, len(counts) + 1, 101)
        for q_of_p in (False, True):
            slow = [literal.divergence(counts, int(each), q_of_p=q_of_p) for each in ranges]
            found = divergences(counts, ranges, levels_see_outliers=q_of_p)
            np.testing.assert_allclose(found, slow, rtol=1e-9, atol=1e-12)
        centres = range(128, len(counts))
        errors = [literal.mean_squared_error(counts, histogram.width, each) for each in centres]
        assert mse(histogram) == pytest.approx((128 + int(np.argmin(errors)) + 0.5) * histogram.width, rel=1e-12)


@needs_data
def test_entropy_ruins_the_mobilenet_and_max_does_not() -> None:
    """Top-1 of all layers in int8 on the 128 samples: 0.45 by entropy, 0.86 by max, as with other tools.

    The bins' width is the first batch's: with a first batch of 64 samples entropy's ranges are sound (0.84).
    """
    model = opened(MOBILENET.file("onnxruntime"))
    histograms = histograms_of(model, np.load(MOBILENET.calibration)["inputs"].astype(np.float32), 8)
    evaluation = np.load(MOBILENET.evaluation)
    batches = batches_of(model, evaluation["inputs"].astype(np.float32), 128)
    every = Variant(name="all_int8", int8=frozenset(each.id for each in model.facts.layers))

    def top1(method: CalibrationMethod) -> float:
        settings = CalibrationSettings(method=method)
        found = {edge: amax(each, settings) for edge, each in histograms.items()}
        assert all(isinstance(each, float) for each in found.values())
        model.set_amax(found)
        (done,) = model.evaluate(batches, [every])
        assert done.outputs is not None
        right = np.asarray(done.outputs["output"]).argmax(axis=1) == evaluation["labels"]
        return float(right.mean())

    assert top1(CalibrationMethod.MAX) > 0.83
    assert top1(CalibrationMethod.ENTROPY) < 0.55
    assert top1(CalibrationMethod.TRT_ENTROPY2) < 0.55
