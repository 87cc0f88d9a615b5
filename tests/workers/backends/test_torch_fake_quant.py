import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from service.domain.errors import RejectedFile
from service.domain.layers import CONTROLS, FP32, Variant, controls
from service.domain.settings import WeightGranularity
from tests.workers.backends.ranges import calibrated
from tests.workers.backends.torch_oracle import OUTPUT_AXIS, Oracle
from tests.workers.models import torch_networks as networks
from workers.backends.protocol import OpenedModel, OpenSettings
from workers.backends.torch_fake_quant import TorchBackend

DATA = Path(os.environ.get("QUANTSIEVE_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
NONE = Variant(name=FP32, int8=frozenset())


def opened(path: Path, **settings: Any) -> OpenedModel:
    return TorchBackend().open(path, OpenSettings(**settings))


def outputs(model: OpenedModel, batch: dict[str, Any], int8: frozenset[str] = frozenset()) -> np.ndarray[Any, Any]:
    (result,) = model.evaluate([batch], [Variant(name="one", int8=int8)])
    assert result.outputs is not None, result.failure
    return np.concatenate([each.reshape(len(each), -1) for each in result.outputs.values()], axis=1)


def array(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


ORACLE_CASES = {
    "linear": (networks.Shared(), (4, 6)),
    "convolutions": (networks.Convolutions(), (4, 4, 4, 16)),
    "residual network": (networks.ConvNet(), (4, 3, 8, 8)),
    "attention": (networks.Attention(causal=True), (4, 5, 8)),
}


@pytest.mark.parametrize("granularity", list(WeightGranularity))
@pytest.mark.parametrize("case", ORACLE_CASES)
def test_every_weighted_layer_agrees_with_quantizers_placed_by_hand(
    tmp_path: Path, case: str, granularity: WeightGranularity
) -> None:
    module, shape = ORACLE_CASES[case]
    x = array(*shape)
    path = networks.save(module, (torch.from_numpy(x),), tmp_path / "m.pt2")
    compare_with_oracle(path, x, granularity)


def compare_with_oracle(path: Path, x: Any, granularity: WeightGranularity) -> None:
    oracle = Oracle(path, per_channel=granularity is WeightGranularity.PER_CHANNEL)
    reference = oracle.outputs(torch.from_numpy(x))
    batch = {"x": x}
    # unfolded, so that the weights are those of the file; functional batch norms round in another order
    model = calibrated(opened(path, fuse_bn=False, weights=granularity), batch)
    np.testing.assert_allclose(outputs(model, batch), reference, atol=1e-5)
    weighted = [layer.id for layer in model.facts.layers if layer.weight is not None]
    theirs = [node.name for node in oracle.module.graph.nodes if node.target in OUTPUT_AXIS]
    assert weighted == theirs
    for name in theirs:
        oracle.int8 = name
        expected = ((oracle.outputs(torch.from_numpy(x)) - reference) ** 2).mean()
        found = ((outputs(model, batch, frozenset({name})) - outputs(model, batch)) ** 2).mean()
        assert expected > 0
        # the difference of two float32 outputs: at most 6e-6 on these networks, from the order of sums in batch norms
        np.testing.assert_allclose(found, expected, rtol=2e-5, err_msg=name)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "data", "layers"),
    [
        ("cifar10_resnet20", "cifar10", 30),
        ("kws_transformer", "kws_transformer", 122),
        ("vww_mobilenet", "vww_mobilenet", 29),
    ],
)
def test_real_networks_agree_with_quantizers_placed_by_hand(name: str, data: str, layers: int) -> None:
    path = DATA / name / "model.pt2"
    if not path.exists():
        pytest.skip(f"{path} is not here; set QUANTSIEVE_TEST_DATA")
    assert len(opened(path).facts.layers) == layers
    x = np.load(DATA / data / "eval.npz")["inputs"][:4].astype(np.float32)
    compare_with_oracle(path, x, WeightGranularity.PER_CHANNEL)


def test_residual_adds_and_pools_quantize_their_listed_operands_alone(tmp_path: Path) -> None:
    class Skip(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.avg_pool1d(torch.relu(x) + y, 2)

    batch = {"x": array(2, 3, 4), "y": array(2, 3, 4)}
    tensors = tuple(torch.from_numpy(each) for each in batch.values())
    model = calibrated(opened(networks.save(Skip(), tensors, tmp_path / "m.pt2")), batch)
    add, pool = model.facts.layers
    assert (add.activations, pool.activations) == ((f"{add.id}:0", f"{add.id}:1"), (f"{pool.id}:0",))

    def int8(values: Any) -> Any:
        scale = np.abs(values).max() / np.float32(127)
        return np.clip(np.rint(values / scale), -128, 127) * scale

    def pooled(values: Any) -> Any:
        return values.reshape(2, 3, 2, 2).mean(3).reshape(2, -1)

    x, y = np.maximum(batch["x"], 0), batch["y"]
    np.testing.assert_allclose(outputs(model, batch, frozenset({add.id})), pooled(int8(x) + int8(y)), atol=1e-6)
    np.testing.assert_allclose(outputs(model, batch, frozenset({pool.id})), pooled(int8(x + y)), atol=1e-6)


def test_controls_repeat_exactly_and_inputs_stay_as_they_are(tmp_path: Path) -> None:
    inputs = (torch.randn(3, 6), True, torch.randn(3, 6))
    model = opened(networks.save(networks.Answers(), inputs, tmp_path / "m.pt2"))
    batch = {"x": array(3, 6), "y": array(3, 6)}
    before = {name: each.copy() for name, each in batch.items()}
    for each in batch.values():
        each.flags.writeable = False
    calibrated(model, batch)
    results = model.evaluate([batch], controls(layer.id for layer in model.facts.layers))
    by_name = {each.variant.name: each for each in results}
    fp32, repeated, all_int8 = (by_name[name] for name in CONTROLS)
    assert fp32.outputs is not None
    assert repeated.outputs is not None
    assert all_int8.outputs is not None
    assert list(fp32.outputs) == ["logits", "extra.output_0", "extra.output_1"]
    for name, values in fp32.outputs.items():
        np.testing.assert_array_equal(values, repeated.outputs[name])
    assert not np.array_equal(fp32.outputs["logits"], all_int8.outputs["logits"])
    np.testing.assert_array_equal(fp32.outputs["extra.output_1"], before["x"] - 1)
    for name, values in batch.items():
        np.testing.assert_array_equal(values, before[name])


def test_a_smaller_batch_is_filled_up_and_cut_again(tmp_path: Path) -> None:
    fixed = networks.save(networks.ConvNet(), (torch.zeros(4, 3, 8, 8),), tmp_path / "m.pt2")
    model = opened(fixed)
    assert model.facts.batch_size == 4
    whole = array(4, 3, 8, 8)
    np.testing.assert_allclose(outputs(model, {"x": whole[:3]}), outputs(model, {"x": whole})[:3], atol=1e-6)
    seen: list[int] = []
    model.observe([{"x": whole[:3]}], lambda _, tensor: seen.append(len(tensor)))
    assert set(seen) == {3}


def test_variants_and_batches_come_back_labelled(tmp_path: Path) -> None:
    path = networks.save(networks.ConvNet(), (torch.zeros(2, 3, 8, 8),), tmp_path / "m.pt2", dynamic=True)
    model = calibrated(opened(path), {"x": array(5, 3, 8, 8)})
    batches = [{"x": array(5, 3, 8, 8)}, {"x": array(1, 3, 8, 8)}]
    found = list(model.evaluate(batches, controls(layer.id for layer in model.facts.layers)))
    assert {(each.variant.name, each.batch) for each in found} == {
        (name, batch) for name in ("fp32", "fp32_repeated", "all_int8") for batch in (0, 1)
    }
    assert {(each.batch, len(each.outputs["output"])) for each in found if each.outputs} == {(0, 5), (1, 1)}


def test_an_input_that_is_always_zero_gives_no_nan(tmp_path: Path) -> None:
    path = networks.save(nn.Sequential(nn.Linear(4, 3)), (torch.zeros(2, 4),), tmp_path / "m.pt2")
    batch = {"input": np.zeros((2, 4), np.float32)}
    model = calibrated(opened(path), batch)
    (layer,) = model.facts.layers
    np.testing.assert_array_equal(outputs(model, batch, frozenset({layer.id})), outputs(model, batch))


def test_a_dead_output_channel_gives_no_nan(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 3))
    nn.init.zeros_(module[0].weight[1])  # type: ignore[arg-type,index]
    batch = {"input": array(2, 4)}
    model = calibrated(opened(networks.save(module, (torch.zeros(2, 4),), tmp_path / "m.pt2")), batch)
    found = outputs(model, batch, frozenset({model.facts.layers[0].id}))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 1], module[0].bias[1].item())  # type: ignore[index]


def test_a_broken_weight_fails_its_own_layer_alone(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    nn.init.constant_(module[1].weight, float("nan"))  # type: ignore[arg-type]
    batch = {"input": array(2, 4)}
    model = opened(networks.save(module, (torch.zeros(2, 4),), tmp_path / "m.pt2"))
    first, second = model.facts.layers
    model.set_amax({edge: 1.0 for layer in (first, second) for edge in layer.activations})
    variants = [Variant(name=layer.name, int8=frozenset({layer.id})) for layer in (first, second)]
    by_name = {each.variant.name: each for each in model.evaluate([batch], variants)}
    good, bad = by_name[first.name], by_name[second.name]
    assert good.failure is None
    assert bad.outputs is None
    assert bad.failure == "its weight holds NaN or infinite values"


def test_a_layer_without_a_range_is_our_own_mistake_and_leaves_the_model_usable(tmp_path: Path) -> None:
    model = opened(networks.save(nn.Sequential(nn.Linear(4, 4)), (torch.zeros(2, 4),), tmp_path / "m.pt2"))
    batch = {"input": array(2, 4)}
    reference = outputs(model, batch)
    with pytest.raises(KeyError, match="has no amax"):
        list(model.evaluate([batch], [Variant(name="one", int8=frozenset({model.facts.layers[0].id}))]))
    np.testing.assert_array_equal(outputs(model, batch), reference)


def test_a_batch_that_the_graph_refuses_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    model = opened(networks.save(nn.Sequential(nn.Linear(4, 4)), (torch.zeros(2, 4),), tmp_path / "m.pt2"))
    (result,) = model.evaluate([{"input": array(2, 5)}], [NONE])
    assert result.outputs is None
    assert result.failure is not None
    assert result.failure.startswith("RuntimeError: ")


def test_quantizers_are_named_as_pytorch_quantization_names_its_own(tmp_path: Path) -> None:
    path = networks.save(networks.Attention(), (torch.zeros(2, 5, 8),), tmp_path / "m.pt2")
    model = opened(path)
    modules = dict(model._session._module.named_modules())  # type: ignore[attr-defined]
    for name in ("qkv._input_quantizer", "qkv._weight_quantizer", "matmul._input_quantizer_1"):
        assert name in modules


def test_a_network_without_layers_is_rejected(tmp_path: Path) -> None:
    path = networks.save(nn.ReLU(), (torch.zeros(2, 4),), tmp_path / "m.pt2")
    with pytest.raises(RejectedFile, match="no quantizable layer"):
        opened(path)


def test_the_file_is_left_as_it_was(tmp_path: Path) -> None:
    path = networks.save(networks.ConvNet(), (torch.zeros(2, 3, 8, 8),), tmp_path / "m.pt2")
    before = path.read_bytes()
    batch = {"x": array(2, 3, 8, 8)}
    outputs(calibrated(opened(path), batch), batch)
    assert path.read_bytes() == before


def test_a_machine_with_torch_says_so() -> None:
    capability = TorchBackend().capability()
    assert capability.available
    assert capability.devices[0] == "cpu"
    assert {"torch", "pytorch-quantization"} <= set(capability.versions)


def test_a_machine_without_a_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.backends.torch_fake_quant.find_spec", lambda name: None)
    capability = TorchBackend().capability()
    assert not capability.available
    assert capability.reason is not None
    assert "torch is not installed" in capability.reason
