"""Probes of ONNX models: against those of the same network as torch.export, the exact sweep, and refusals."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from scipy import stats

from service.domain.errors import InvalidInput
from service.domain.layers import ALL_INT8, FP32, Variant, controls
from service.domain.settings import WeightGranularity
from tests.workers.backends.ranges import calibrated
from workers.backends import onnx_agreement
from workers.backends.onnx_agreement import refuse_other_errors, refuse_other_outputs
from workers.backends.onnxruntime import OnnxModel, OnnxRuntimeBackend
from workers.backends.protocol import OpenSettings, OutputError
from workers.backends.torch_fake_quant import TorchBackend, TorchModel
from workers.data.binding import Batch
from workers.engine.probe import estimates
from workers.engine.probe_settings import ProbeSettings
from workers.engine.probe_sums import ProbeSums

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
DATA = Path(os.environ.get("QUANTSIEVE_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
REAL = {"cifar10_resnet20": "cifar10", "vww_mobilenet": "vww_mobilenet", "kws_transformer": "kws_transformer"}

real = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no models in {DATA}; set QUANTSIEVE_TEST_DATA"),
]


def opened(path: Path, x: Any, **settings: Any) -> OnnxModel:
    model = OnnxRuntimeBackend().open(path, OpenSettings(**settings))
    assert isinstance(model, OnnxModel)
    return calibrated(model, {model.facts.inputs[0].name: x})


def paired(model: OnnxModel, path: Path) -> TorchModel:
    """The same network as torch.export, with the same ranges, its layers in the same order."""
    other = TorchBackend().open(path, OpenSettings())
    assert isinstance(other, TorchModel)
    edges = zip(edges_of(model), edges_of(other), strict=True)
    other.set_amax({theirs: model._amax[ours] for ours, theirs in edges})
    return other


def edges_of(model: OnnxModel | TorchModel) -> list[str]:
    return [edge for layer in model.facts.layers for edge in layer.activations]


def batch_of(model: OnnxModel | TorchModel, x: Any) -> Batch:
    return Batch({model.facts.inputs[0].name: x}, None, np.arange(len(x)))


def settings_of(model: OnnxModel | TorchModel, **settings: Any) -> ProbeSettings:
    return ProbeSettings(model.facts.outputs[0].name, **settings)


def probed(model: OnnxModel, x: Any, **settings: Any) -> ProbeSums:
    return model.probe([batch_of(model, x)], settings_of(model, **settings))


def mse(sums: ProbeSums) -> np.ndarray:
    return np.array([each["mse"].value for each in estimates(sums).values()])


def case(name: str) -> tuple[OnnxModel, TorchModel, np.ndarray]:
    """A network in both formats, and samples."""
    if name == "digits":
        x = np.load(DIGITS / "calib.npz")
        x = np.asarray(x[x.files[0]][:16], np.float32)
        model = opened(DIGITS / "digits.onnx", x)
        return model, paired(model, DIGITS / "digits.pt2"), x
    calib, samples = (np.load(DATA / REAL[name] / f"{each}.npz")["inputs"][:16] for each in ("calib", "eval"))
    model = opened(DATA / name / "model.onnx", calib)
    return model, paired(model, DATA / name / "model.pt2"), samples


@pytest.mark.parametrize("name", ["digits", *(pytest.param(each, marks=real) for each in REAL)])
def test_a_network_is_probed_alike_in_both_formats(name: str) -> None:
    model, other, x = case(name)
    ours = probed(model, x)
    theirs = other.probe([batch_of(other, x)], settings_of(other))
    assert ours.layers == tuple(each.id for each in model.facts.layers)
    assert ours.failures == {}
    assert ours.constants == ()
    off = np.abs(mse(ours) - mse(theirs))
    # both see the same directions, but values on the edge of two levels may fall either way: where a layer's error
    # hardly reaches the output, a thousandth of what others do, a few of those are a third of it
    assert np.median(off / mse(theirs)) < 1e-3
    assert (off / (mse(theirs) + 0.1 * mse(theirs).mean())).max() < 0.05
    assert_both_agree_with_every_layer_in_int8(model, x[:8])


def assert_both_agree_with_every_layer_in_int8(model: OnnxModel, x: Any) -> None:
    """Up to values that round to the next level, which is some of what int8 does and far from all of it."""
    probe, name = model._probe, model.facts.inputs[0].name
    assert probe is not None
    ids = frozenset(each.id for each in model.facts.layers)
    outputs = {
        each.variant.name: each.outputs[model.facts.outputs[0].name]
        for each in model.evaluate([{name: x}], controls(ids))
        if each.outputs is not None
    }
    fp32, int8 = outputs[FP32], outputs[ALL_INT8]
    probe._session.select(ids)
    (found,) = probe._session.outputs(probe._rename({name: x})).values()
    assert np.linalg.norm(found - int8) < 0.3 * np.linalg.norm(int8 - fp32)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no models in {DATA}; set QUANTSIEVE_TEST_DATA")
def test_the_probe_ranks_layers_as_the_exact_sweep_does() -> None:
    model, _, x = case("cifar10_resnet20")
    ids = [each.id for each in model.facts.layers]
    variants = [Variant(name=each, int8=frozenset({each} if each else ())) for each in ["", *ids]]
    name, output = model.facts.inputs[0].name, model.facts.outputs[0].name
    found = {each.variant.name: each.outputs[output] for each in model.evaluate([{name: x}], variants) if each.outputs}
    exact = [float(np.square(found[each] - found[""]).mean()) for each in ids]
    assert stats.spearmanr(mse(probed(model, x, probes=4)), exact).statistic >= 0.97


def saved(folder: Path, body: str) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]>\n{body}')
    onnx.save(onnx.shape_inference.infer_shapes(model), folder / "m.onnx")
    return folder / "m.onnx"


def weight(name: str, *shape: int) -> str:
    values = np.random.default_rng(3).normal(size=shape).ravel()
    return f"float[{','.join(map(str, shape))}] {name} = {{{','.join(f'{each:#.8g}' for each in values)}}}"


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)


LINEAR = "[fc] a = MatMul(x, w) [add] b = Add(a, x) [last] y = Gemm <alpha=0.5> (b, v)"


@pytest.mark.parametrize("granularity", list(WeightGranularity))
@pytest.mark.parametrize("batch", ["n", "5"], ids=["any batch", "fixed batch"])
def test_of_a_linear_network_the_probe_is_exact(tmp_path: Path, batch: str, granularity: WeightGranularity) -> None:
    """As many probes as outputs, a power of two, see every direction; samples that fill a batch are not counted."""
    body = f"g (float[{batch},4] x) => (y) <{weight('w', 4, 4)}, {weight('v', 4, 8)}> {{ {LINEAR} }}"
    x = rows(7)
    model = opened(saved(tmp_path, body), x[:5], weights=granularity)
    batches = [Batch({"x": x[part]}, None, np.arange(7)[part]) for part in (slice(5), slice(5, 7))]
    sums = model.probe(batches, settings_of(model, probes=8))
    variants = [Variant(name=each, int8=frozenset({each} if each else ())) for each in ("", "fc", "add", "last")]
    found: dict[str, list[Any]] = {}
    for done in model.evaluate([each.inputs for each in batches], variants):
        assert done.outputs is not None
        found.setdefault(done.variant.name, []).append(done.outputs["y"])
    fp32, *int8 = (np.concatenate(found[each.name]) for each in variants)
    assert sums.samples == 7
    np.testing.assert_allclose(mse(sums), [np.square(each - fp32).mean() for each in int8], rtol=1e-3)


def test_new_ranges_are_taken_up(tmp_path: Path) -> None:
    x = rows(6)
    model = opened(saved(tmp_path, f"g (float[n,4] x) => (y) <{weight('w', 4, 8)}> {{ [fc] y = MatMul(x, w) }}"), x)
    first = mse(probed(model, x))
    model.set_amax({"fc:0": model._amax["fc:0"]})
    held = model._probe
    assert held is not None
    assert mse(probed(model, x)) == first
    assert model._probe is held
    model.set_amax({"fc:0": 100.0})
    assert mse(probed(model, x)) > 10 * first


def test_operations_without_derivative_are_named_as_in_the_model_and_shapes_are_not(tmp_path: Path) -> None:
    body = f"""g (float[n,4] x) => (y) <{weight("w", 4, 8)}, {weight("v", 4, 8)}> {{
        [fc] a = MatMul(x, w) [steps] r = Round(a) [shape] s = Shape(r) [other] b = MatMul(x, v)
        [c] t = Reshape(b, s) [d] y = Sub(t, r)
    }}"""
    x = rows(6)
    sums = probed(opened(saved(tmp_path, body), x), x)
    assert sums.constants == ("steps",)
    assert mse(sums)[0] == 0.0
    assert mse(sums)[1] > 0.0


def test_an_operator_without_a_rule_is_refused_by_name(tmp_path: Path) -> None:
    body = f"""g (float[n,4] x) => (y) <{weight("w", 4, 8)}, int64 one = {{1}}> {{
        [fc] a = MatMul(x, w) [sums] y = CumSum(a, one)
    }}"""
    x = rows(6)
    model = opened(saved(tmp_path, body), x)
    with pytest.raises(InvalidInput, match=r"operator CumSum \(node 'sums'\).*method: exact") as caught:
        probed(model, x)
    assert caught.value.field == "method"


def test_a_graph_that_does_not_agree_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sum of another order is as close as this tolerance asks for."""
    x = rows(6)
    body = f"g (float[n,4] x) => (y) <{weight('w', 4, 8)}> {{ [fc] a = MatMul(x, w) [s] y = Softmax(a) }}"
    model = opened(saved(tmp_path, body), x)
    monkeypatch.setattr(onnx_agreement, "FP32_TOLERANCE", -1.0)
    with pytest.raises(InvalidInput, match=r"does not agree with ONNX Runtime: output 'y' differs by .*") as caught:
        probed(model, x)
    assert caught.value.field == "method"


def test_at_least_one_batch_is_needed(tmp_path: Path) -> None:
    model = opened(saved(tmp_path, f"g (float[n,4] x) => (y) <{weight('w', 4, 8)}> {{ y = MatMul(x, w) }}"), rows(2))
    with pytest.raises(ValueError, match="no batches"):
        model.probe([], settings_of(model))


ONE = np.ones((2, 3), np.float32)


def test_outputs_that_differ_are_refused_with_the_difference() -> None:
    refuse_other_outputs(
        {"y": ONE, "class": np.zeros(2, np.int64)}, {"y": ONE * 1.00005, "class": np.ones(2, np.int64)}
    )
    with pytest.raises(InvalidInput, match=r"output 'y' differs by 2\.0e-04 of its size .*more than 1e-04.*exact"):
        refuse_other_outputs({"y": ONE}, {"y": ONE * 1.0002})
    with pytest.raises(InvalidInput, match=r"output 'y' has shape \(3, 2\) in torch and \(2, 3\) there"):
        refuse_other_outputs({"y": ONE}, {"y": ONE.T})


def test_layers_whose_int8_errors_differ_are_refused_by_name() -> None:
    expected = {"a": OutputError(100.0, 0.01), "b": OutputError(100.0, 0.0), "c": OutputError(0.0, 0.0, "broken")}
    refuse_other_errors(expected, expected | {"a": OutputError(100.0, 0.0105), "b": OutputError(100.0, 1e-7)})
    with pytest.raises(
        InvalidInput, match=r"layer 'a' errs in int8 by 1\.20e-02 of its output in torch and by 1\.00e-02"
    ):
        refuse_other_errors(expected, expected | {"a": OutputError(100.0, 0.0144)})
    with pytest.raises(InvalidInput, match="layer 'c' runs in int8 in one of them only: broken"):
        refuse_other_errors(expected, expected | {"c": OutputError(1.0, 0.1)})
