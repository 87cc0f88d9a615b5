"""Variants of a model with a real custom operator, against the definition written out in NumPy."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.domain.errors import InvalidInput
from service.domain.layers import Variant
from tests.workers.backends.ranges import calibrated
from tests.workers.plugins import LAYERS, NETWORK, PLUGIN_EDGES, library, model_bytes, samples, saved
from workers.backends.onnxruntime import OnnxModel, OnnxRuntimeBackend
from workers.backends.protocol import OpenSettings, PluginLibraries
from workers.data.binding import Batch
from workers.engine.probe_settings import ProbeSettings
from workers.models.onnx_libraries import content_of

WEIGHTS = {
    each.name: onnx.numpy_helper.to_array(each) for each in onnx.load_from_string(model_bytes()).graph.initializer
}


def opened(folder: Path, body: str = NETWORK, **settings: object) -> OnnxModel:
    asked = OpenSettings(libraries=PluginLibraries(onnxruntime=(library(),)), **settings)
    model = OnnxRuntimeBackend().open(saved(folder, body), asked)
    assert isinstance(model, OnnxModel)
    return calibrated(model, {"x": samples()})


def fake(values: np.ndarray, amax: float) -> np.ndarray:
    scale = np.float32(amax) / np.float32(127)
    return np.clip(np.round(values / scale), -128, 127) * scale


def expected(x: np.ndarray, *, plugin: bool) -> np.ndarray:
    """The network with nothing, or the plugin alone, in int8."""
    calibration = samples() @ WEIGHTS["a"].T
    h = x @ WEIGHTS["a"].T
    if plugin:
        h = fake(h, float(np.abs(calibration).max()))
    negative, positive = np.minimum(h, 0), np.maximum(h, 0)
    if plugin:
        negative = fake(negative, float(np.abs(np.minimum(calibration, 0)).max()))
        positive = fake(positive, float(np.abs(np.maximum(calibration, 0)).max()))
    r = positive + WEIGHTS["slope"] * negative
    return r @ WEIGHTS["b"].T + positive @ WEIGHTS["c"].T


def evaluated(model: OnnxModel, x: np.ndarray, *variants: tuple[str, ...]) -> list[Mapping[str, np.ndarray]]:
    asked = [Variant(name=str(index), int8=frozenset(int8)) for index, int8 in enumerate(variants)]
    found = {each.variant.name: each for each in model.evaluate([{"x": x}], asked)}
    for each in found.values():
        assert each.outputs is not None, each.failure
    return [found[str(index)].outputs for index in range(len(variants))]


def test_a_plugin_in_int8_reads_and_gives_quantized_tensors(tmp_path: Path) -> None:
    x = samples(16, seed=1)
    plain, quantized = evaluated(opened(tmp_path), x, (), ("split",))
    np.testing.assert_allclose(plain["scores"], expected(x, plugin=False), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(quantized["scores"], expected(x, plugin=True), rtol=1e-5, atol=1e-5)
    assert not np.allclose(plain["scores"], quantized["scores"], atol=1e-3)


def test_calibration_sees_what_goes_in_and_what_comes_out(tmp_path: Path) -> None:
    seen: dict[str, np.ndarray] = {}
    model = opened(tmp_path)
    model.observe([{"x": samples()}], lambda edge, tensor: seen.update({edge: tensor}))
    h = samples() @ WEIGHTS["a"].T
    for edge, wanted in zip(PLUGIN_EDGES, (h, np.minimum(h, 0), np.maximum(h, 0)), strict=True):
        np.testing.assert_allclose(seen[edge], wanted, rtol=1e-5, atol=1e-6)


def test_cut_graphs_give_what_the_whole_graph_gives(tmp_path: Path) -> None:
    """Whatever starts behind the plugin reads its outputs as they are quantized in the trunk."""
    x = samples(16, seed=1)
    every = frozenset(LAYERS)
    variants = [(), tuple(every), *((each,) for each in LAYERS), *(tuple(every - {each}) for each in LAYERS)]
    model = opened(tmp_path)
    assert model._tree.segments == len(LAYERS)
    whole = evaluated(opened(tmp_path, segments=1), x, *variants)
    for found, wanted in zip(evaluated(model, x, *variants), whole, strict=True):
        np.testing.assert_allclose(found["scores"], wanted["scores"], rtol=1e-5, atol=1e-6)


def test_an_output_of_the_graph_is_given_out_as_the_plugin_makes_it(tmp_path: Path) -> None:
    body = "g (float[N,4] x) => (float[N,4] n, float[N,4] p) { [plug] n, p = ai.onnx.contrib.NegPos(x) }"
    x = samples(16, seed=1)
    model = opened(tmp_path, body)
    (found,) = evaluated(model, x, ("plug",))
    read = fake(x, float(np.abs(samples()).max()))
    np.testing.assert_allclose(found["n"], np.minimum(read, 0), rtol=1e-6)
    np.testing.assert_allclose(found["p"], np.maximum(read, 0), rtol=1e-6)


def test_the_error_of_a_plugins_outputs_is_that_of_all_of_them(tmp_path: Path) -> None:
    x = samples(16, seed=1)
    (found,) = opened(tmp_path).output_errors([{"x": x}], LAYERS)
    assert {each: error.failure for each, error in found.items()} == dict.fromkeys(LAYERS)
    calibration, h = samples() @ WEIGHTS["a"].T, x @ WEIGHTS["a"].T
    read = fake(h, float(np.abs(calibration).max()))
    noise = sum(
        np.square(fake(part(read), float(np.abs(part(calibration)).max())) - part(h)).sum()
        for part in (lambda v: np.minimum(v, 0), lambda v: np.maximum(v, 0))
    )
    assert found["split"].signal == pytest.approx(np.square(h).sum(), rel=1e-4)
    # a value in some thousands rounds to the other neighbour
    assert found["split"].noise == pytest.approx(noise, rel=1e-2)


def test_the_content_of_the_libraries_is_a_fact_of_a_model_with_plugins_alone(tmp_path: Path) -> None:
    assert opened(tmp_path).facts.libraries == {content_of(library()): library().name}
    standard = "g (float[N,4] x) => (float[N,4] y) <float[4] w = {1,2,3,4}> { [fc] y = MatMul(x, v) }"
    standard = standard.replace("float[4] w = {1,2,3,4}", "float[4,4] v = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}")
    assert opened(tmp_path, standard).facts.libraries == {}


def test_probes_refuse_a_plugin_by_name(tmp_path: Path) -> None:
    x = samples(8)
    batch = Batch({"x": x}, None, np.arange(8))
    with pytest.raises(InvalidInput, match=r"ai\.onnx\.contrib::NegPos \(node 'split'\) is a plugin.*method: exact"):
        opened(tmp_path).probe([batch], ProbeSettings("scores"))
