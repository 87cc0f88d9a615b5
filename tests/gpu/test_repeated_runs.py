"""CUDA graphs of small batches, and the transfers around them. Skips where there is no CUDA device."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.gpu.test_torch_cuda import one_on
from tests.workers.backends.naive import torch_outputs
from tests.workers.backends.ranges import calibrated
from tests.workers.models import torch_networks as networks
from workers.backends import torch_cuda_graph
from workers.backends.protocol import OpenSettings
from workers.backends.torch_fake_quant import TorchBackend, TorchModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "convolutions": (networks.Convolutions(), (4, 4, 4, 16)),
    "residual network": (networks.ConvNet(), (4, 3, 8, 8)),
    "attention": (networks.Attention(causal=True), (4, 5, 8)),
}


class Inverse(nn.Module):
    """The host looks at a result of the device: nothing that a graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc1(x)
        return self.fc2(torch.linalg.inv(h.transpose(1, 2) @ h + torch.eye(4, device=h.device)))  # type: ignore[no-any-return]


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each replay of a graph."""
    found: list[int] = []
    replay = torch.cuda.CUDAGraph.replay

    def counted(graph: torch.cuda.CUDAGraph) -> None:
        found.append(1)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    return found


def opened(module: nn.Module, folder: Path, *shape: int, count: int, dynamic: bool = False) -> tuple[TorchModel, Any]:
    """A model, and so many batches for it."""
    x = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    path = networks.save(module, (torch.from_numpy(x[0]),), folder / "m.pt2", dynamic=dynamic)
    model = TorchBackend().open(path, OpenSettings(device="cuda:0"))
    assert isinstance(model, TorchModel)
    name = model.facts.inputs[0].name
    return calibrated(model, {name: x[0]}), [{name: each} for each in x]


def compare(model: TorchModel, batches: list[Any], *, tolerance: float = 0.0) -> None:
    """All outputs are kept until the end, so that none can be overwritten by a later batch."""
    variants = one_on(model)
    found = list(model.evaluate(batches, variants))
    expected = torch_outputs(model._session, batches, variants)
    assert len(found) == len(batches) * len(variants)
    for each in found:
        assert each.outputs is not None, each.failure
        for name, values in expected[each.variant.name, each.batch].items():
            atol = tolerance * float(np.abs(values).max())
            np.testing.assert_allclose(each.outputs[name], values, rtol=0, atol=atol)


@pytest.mark.parametrize("name", NETWORKS)
def test_replays_give_what_the_naive_loop_gives_bit_for_bit(
    tmp_path: Path, name: str, replays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # some of cuDNN's transposed convolutions add up in an order of their own in every run
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    model, batches = opened(NETWORKS[name][0], tmp_path, *NETWORKS[name][1], count=10)
    compare(model, batches)
    assert len(replays) == 9  # the first runs by calls


def test_stacked_variants_are_replayed_too(tmp_path: Path, replays: list[int]) -> None:
    model, batches = opened(networks.ConvNet(), tmp_path, 4, 3, 8, 8, count=10, dynamic=True)
    compare(model, batches, tolerance=1e-5)
    assert len(replays) == 9


def test_a_shorter_batch_runs_by_calls(tmp_path: Path, replays: list[int]) -> None:
    model, batches = opened(networks.ConvNet(), tmp_path, 4, 3, 8, 8, count=10, dynamic=True)
    compare(model, [*batches, {name: each[:3] for name, each in batches[0].items()}], tolerance=1e-5)
    assert len(replays) == 9


def test_new_ranges_are_those_that_count(tmp_path: Path, replays: list[int]) -> None:
    model, batches = opened(networks.ConvNet(), tmp_path, 4, 3, 8, 8, count=10)
    compare(model, batches)
    model.set_amax({edge: 0.5 for layer in model.facts.layers for edge in layer.activations})
    compare(model, batches)
    assert len(replays) == 18


def test_what_cannot_be_recorded_runs_by_calls(tmp_path: Path, replays: list[int]) -> None:
    model, batches = opened(Inverse(), tmp_path, 4, 6, 4, count=10)
    compare(model, batches)
    assert replays == []
    # and the device is as it was
    good, batches = opened(networks.ConvNet(), tmp_path, 4, 3, 8, 8, count=10)
    compare(good, batches)
    assert len(replays) == 9


def test_no_room_for_a_graph_is_no_failure(tmp_path: Path, replays: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = opened(networks.ConvNet(), tmp_path, 4, 3, 8, 8, count=10)

    def burst(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch.cuda.graph, "__enter__", burst)
    compare(model, batches)
    assert replays == []


@pytest.mark.parametrize(
    ("limit", "value"), [("MOST_SAMPLES", 3), ("MOST_BYTES", 100), ("FEWEST_BATCHES", 11)], ids=str
)
def test_graphs_are_for_many_small_batches_with_small_outputs(
    tmp_path: Path, replays: list[int], monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(torch_cuda_graph, limit, value)
    model, batches = opened(networks.ConvNet(), tmp_path, 4, 3, 8, 8, count=10)
    compare(model, batches)
    assert replays == []


def test_transfers_bring_the_numbers_as_they_are(tmp_path: Path) -> None:
    model, batches = opened(networks.ConvNet(), tmp_path, 64, 3, 96, 96, count=4)
    session = model._session
    tensors = [session.tensors(each) for each in batches]  # all of them under way at once
    for batch, tensor in zip(batches, tensors, strict=True):
        for name, values in batch.items():
            assert tensor[name].is_cuda
            back = [session._array(tensor[name], 64), session._array(tensor[name] + 1, 64)]
            np.testing.assert_array_equal(back[0], values)
            np.testing.assert_array_equal(back[1], values + np.float32(1))
