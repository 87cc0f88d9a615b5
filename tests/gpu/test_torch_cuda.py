"""The torch backend on a CUDA device. Skips where there is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from service.domain.layers import Variant
from tests.workers.backends.naive import torch_outputs
from tests.workers.backends.ranges import calibrated
from tests.workers.models import torch_networks as networks
from workers.backends.protocol import OpenSettings, OutOfMemory
from workers.backends.torch_fake_quant import TorchBackend, TorchModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "residual network": (networks.ConvNet(), (16, 3, 8, 8)),
    "attention": (networks.Attention(causal=True), (16, 5, 8)),
}


def opened(path: Path, device: str, x: Any) -> TorchModel:
    model = TorchBackend().open(path, OpenSettings(device=device))
    assert isinstance(model, TorchModel)
    return calibrated(model, {model.facts.inputs[0].name: x})


def saved(module: nn.Module, folder: Path, *shape: int) -> tuple[Path, Any]:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return networks.save(module, (torch.from_numpy(x),), folder / "m.pt2", dynamic=True), x


def one_on(model: TorchModel) -> list[Variant]:
    ids = [each.id for each in model.facts.layers]
    return [Variant(name="fp32", int8=frozenset()), *(Variant(name=each, int8=frozenset({each})) for each in ids)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("stacked", [False, True], ids=["one by one", "stacked"])
def test_the_tree_gives_what_the_naive_loop_gives(
    tmp_path: Path, name: str, stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not stacked:
        monkeypatch.setattr("workers.backends.torch_tree.STACKED_ROWS", {"cuda": 1})
    path, x = saved(NETWORKS[name][0], tmp_path, *NETWORKS[name][1])
    model = opened(path, "cuda:0", x)
    batch, variants = {model.facts.inputs[0].name: x}, one_on(model)
    expected = torch_outputs(model._session, [batch], variants)
    for each in model.evaluate([batch], variants):
        assert each.outputs is not None, each.failure
        for output, values in expected[each.variant.name, 0].items():
            largest = float(np.abs(values).max())
            tolerance = 1e-5 * largest if stacked else 0.0
            np.testing.assert_allclose(each.outputs[output], values, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_fp32_is_that_of_the_cpu_and_not_tf32(tmp_path: Path, name: str) -> None:
    path, x = saved(NETWORKS[name][0], tmp_path, *NETWORKS[name][1])
    found = []
    for device in ("cpu", "cuda:0"):
        model = opened(path, device, x)
        (result,) = model.evaluate([{model.facts.inputs[0].name: x}], one_on(model)[:1])
        assert result.outputs is not None
        found.append(next(iter(result.outputs.values())))
    # TF32 keeps 10 bits of the fraction: its error would be about 1e-3
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=2e-6 * float(np.abs(found[0]).max()))


def test_too_large_a_batch_is_said_to_be_too_large(tmp_path: Path) -> None:
    path, x = saved(networks.ConvNet(), tmp_path, 16, 3, 8, 8)
    model = opened(path, "cuda:0", x)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.001)
    try:
        large = np.zeros((200_000, 3, 8, 8), np.float32)
        with pytest.raises(OutOfMemory, match="200000 samples"):
            list(model.evaluate([{model.facts.inputs[0].name: large}], one_on(model)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    (result,) = model.evaluate([{model.facts.inputs[0].name: x}], one_on(model)[:1])
    assert result.outputs is not None
