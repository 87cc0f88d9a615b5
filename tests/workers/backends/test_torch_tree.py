"""The variant tree over real graphs gives what the naive loop gives."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from service.domain.layers import Variant
from tests.real_data import MODELS, RealModel, needs_data
from tests.workers.backends.naive import torch_outputs
from tests.workers.backends.ranges import calibrated
from tests.workers.models import torch_networks as networks
from workers.backends.protocol import OpenSettings, OutOfMemory
from workers.backends.torch_fake_quant import TorchBackend, TorchModel

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "shared weight": (networks.Shared(), (4, 6)),
    "convolutions": (networks.Convolutions(), (4, 4, 4, 16)),
    "residual network": (networks.ConvNet(), (4, 3, 8, 8)),
    "attention": (networks.Attention(causal=True), (4, 5, 8)),
}


def opened(path: Path, *inputs: Any) -> TorchModel:
    """The archive with ranges from these inputs."""
    model = TorchBackend().open(path, OpenSettings())
    assert isinstance(model, TorchModel)
    return calibrated(model, dict(zip([each.name for each in model.facts.inputs], inputs, strict=True)))


def saved(module: nn.Module, path: Path, *shape: int, dynamic: bool = True) -> tuple[TorchModel, Any]:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return opened(networks.save(module, (torch.from_numpy(x),), path / "m.pt2", dynamic=dynamic), x), x


def many_variants(ids: list[str]) -> list[Variant]:
    """Controls, one-on, one-off, nested, pairs and random sets."""
    every = frozenset(ids)
    sets = [frozenset[str](), frozenset[str](), every]
    sets += [frozenset({each}) for each in ids]
    sets += [every - {each} for each in ids]
    sets += [frozenset(ids[:length]) for length in range(2, len(ids))]
    sets += [frozenset(pair) for pair in itertools.islice(itertools.combinations(ids, 2), 12)]
    rng = np.random.default_rng(1)
    sets += [frozenset(each for each in ids if rng.random() < 0.5) for _ in range(8)]
    return [Variant(name=str(index), int8=int8) for index, int8 in enumerate(sets)]


def compare(model: TorchModel, batches: list[Any], variants: list[Variant], *, exact: bool = True) -> None:
    expected = torch_outputs(model._session, batches, variants)
    found = {(each.variant.name, each.batch): each for each in model.evaluate(batches, variants)}
    assert set(found) == set(expected)
    for key, outputs in expected.items():
        assert found[key].outputs is not None, found[key].failure
        for name, values in outputs.items():
            if exact:
                np.testing.assert_array_equal(found[key].outputs[name], values)
            else:
                largest = float(np.abs(values).max())
                np.testing.assert_allclose(found[key].outputs[name], values, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("dynamic", [True, False], ids=["any batch", "fixed batch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_variants_are_bit_identical_to_the_naive_loop(
    tmp_path: Path, name: str, dynamic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.backends.torch_tree.STACKED_ROWS", {"cpu": 1})
    module, shape = NETWORKS[name]
    model, x = saved(module, tmp_path, *shape, dynamic=dynamic)
    input_name = model.facts.inputs[0].name
    ids = [each.id for each in model.facts.layers]
    compare(model, [{input_name: x}, {input_name: x[:3] * 0.5}], many_variants(ids))


@pytest.mark.parametrize("name", NETWORKS)
def test_stacked_variants_agree_with_the_naive_loop(tmp_path: Path, name: str) -> None:
    module, shape = NETWORKS[name]
    model, x = saved(module, tmp_path, *shape)
    input_name = model.facts.inputs[0].name
    ids = [each.id for each in model.facts.layers]
    compare(model, [{input_name: x}, {input_name: x[:3] * 0.5}], many_variants(ids), exact=False)
    assert model._tree.not_stacked is None


@needs_data
@pytest.mark.parametrize("real", MODELS, ids=[each.folder for each in MODELS])
def test_real_networks_are_bit_identical_to_the_naive_loop(real: RealModel) -> None:
    x = np.load(real.evaluation)["inputs"][:64].astype(np.float32)
    model = opened(real.file("torch"), x)
    ids = [each.id for each in model.facts.layers][:: 12 if len(model.facts.layers) > 100 else 5]
    variants = [Variant(name=each, int8=frozenset({each})) for each in ids]
    compare(model, [{model.facts.inputs[0].name: x}], variants)


class Mixing(nn.Module):
    """Subtracts what the batch has in common."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.last, self.how = nn.Linear(6, 6), nn.Linear(6, 3), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x - x.mean(0, keepdim=True) if self.how == "mean" else x.cumsum(0)
        return self.last(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("how", "reason"), [("mean", "mixes samples"), ("cumsum", "the model mixes samples")])
def test_a_model_that_mixes_samples_is_not_stacked(tmp_path: Path, how: str, reason: str) -> None:
    model, x = saved(Mixing(how), tmp_path, 4, 6)
    compare(model, [{"x": x}], many_variants([each.id for each in model.facts.layers]))
    assert reason in str(model._tree.not_stacked)


class BatchSecond(nn.Module):
    """Keeps the time steps on the first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.relu(self.layer(x.transpose(0, 1)))
        return self.head(steps.mean(0))  # type: ignore[no-any-return]


def test_a_model_with_the_batch_on_another_axis_is_not_stacked(tmp_path: Path) -> None:
    model, x = saved(BatchSecond(), tmp_path, 4, 5, 6)
    compare(model, [{"x": x}], many_variants([each.id for each in model.facts.layers]))
    assert "first axis" in str(model._tree.not_stacked)


class Token(nn.Module):
    """Puts a token of its own before each sample's: sizes in the graph depend on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer, self.head = nn.Parameter(torch.randn(1, 1, 6)), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.layer(x))
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x.reshape(x.shape[0] * 3, 2, 6).reshape(-1, 36)
        return self.head(x.reshape(-1, 6, 6)[:, 0])  # type: ignore[no-any-return]


def test_sizes_in_the_graph_follow_the_stack(tmp_path: Path) -> None:
    model, x = saved(Token(), tmp_path, 4, 5, 6)
    compare(model, [{"x": x}], many_variants([each.id for each in model.facts.layers]), exact=False)
    assert model._tree.not_stacked is None
    stacking = model._tree._stacking
    one, three = {"x": torch.from_numpy(x)}, {"x": torch.from_numpy(np.concatenate([x, x, x]))}
    assert stacking.sizes(one, 3) == stacking.sizes(three, 1) != stacking.sizes(one, 1)


def test_an_operation_that_fails_takes_its_own_variants_down_alone(tmp_path: Path) -> None:
    model, x = saved(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), tmp_path, 4, 4)
    first, last = model.facts.layers
    (number,) = [
        index
        for index, node in enumerate(model._tree._nodes)
        if node.op == "call_module" and model._session.layer_of[node] == first.id and "input" in str(node.target)
    ]

    def sink(_: Any) -> Any:
        raise RuntimeError("no kernel for this\nsecond line")

    model._tree._calls[number] = sink
    variants = [Variant(name=each, int8=frozenset(ids)) for each, ids in (("a", {first.id}), ("b", {last.id}))]
    found = {each.variant.name: each for each in model.evaluate([{"input": x}], variants)}
    assert found["a"].failure == "RuntimeError: no kernel for this"
    assert found["b"].outputs is not None

    def burst(_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model._tree._calls[number] = burst
    with pytest.raises(OutOfMemory, match="a batch of 4 samples does not fit"):
        list(model.evaluate([{"input": x}], variants))
