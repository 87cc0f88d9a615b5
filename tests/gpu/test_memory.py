"""What a sweep holds on a CUDA device. Skips where there is none."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from service.domain.settings import BackendName
from service.domain.states import SweepState, UnitKind
from tests.gpu.test_torch_cuda import one_on, opened, saved
from tests.workers.backends.ranges import calibrated
from tests.workers.installation import Installation, npz_bytes
from tests.workers.models import torch_networks as networks
from workers.backends.protocol import OpenSettings
from workers.backends.torch_fake_quant import TorchBackend, TorchModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")


def peak(model: TorchModel, batches: list[dict[str, Any]]) -> int:
    """Bytes above what was there before."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in model.evaluate(batches, one_on(model)):
        pass
    return torch.cuda.max_memory_allocated() - before


def chain(depth: int) -> nn.Module:
    return nn.Sequential(*(each for _ in range(depth) for each in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())))


def test_peak_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    peaks = []
    for depth in (24, 48, 96, 192):  # more layers than are stacked twice over
        path, x = saved(chain(depth), tmp_path, 64, 16, 32, 32)
        model = opened(path, "cuda:0", x)
        peaks.append(peak(model, [{model.facts.inputs[0].name: x}]))
    assert max(peaks) < 1.3 * min(peaks), peaks


@pytest.mark.parametrize(("size", "shape"), [(128, (16, 16)), (16, (32, 32))], ids=["by calls", "recorded"])
def test_peak_memory_does_not_grow_with_the_number_of_samples(
    tmp_path: Path, size: int, shape: tuple[int, ...]
) -> None:
    module = nn.Sequential(chain(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = np.random.default_rng(0).standard_normal((size, 16, *shape)).astype(np.float32)
    path = networks.save(module, (torch.from_numpy(x),), tmp_path / "m.pt2")
    model = TorchBackend().open(path, OpenSettings(device="cuda:0"))
    assert isinstance(model, TorchModel)
    batch = {model.facts.inputs[0].name: x}
    calibrated(model, batch)
    peak(model, [batch])
    peaks = [peak(model, [batch] * count) for count in (8, 16, 32, 64)]
    assert max(peaks) < 1.05 * min(peaks), peaks


def test_batches_are_halved_until_they_fit_and_the_sweep_is_measured(
    installation: Installation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = nn.Sequential(chain(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    x = np.random.default_rng(0).standard_normal((256, 16, 48, 48)).astype(np.float32)
    path = networks.save(module, (torch.from_numpy(x[:2]),), tmp_path / "m.pt2", dynamic=True)
    samples = installation.dataset(npz_bytes(input=x))
    sweep_id = installation.sweep(
        backend=BackendName.TORCH,
        model=installation.model(path.read_bytes(), "pt2"),
        dataset=samples,
        shard_size=256,
    )
    lease = installation.run_until(UnitKind.MEASURE)
    assert lease is not None
    torch.cuda.empty_cache()
    # a tensor of 256 samples is 36 MiB, and a run holds several
    room = torch.cuda.memory_reserved() + 40 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        with caplog.at_level(logging.WARNING, logger="workers.sweep.measure"):
            installation.run(lease)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory; going on with batches of 128" in caplog.text
    assert installation.run_until() is None
    assert installation.state(sweep_id) is SweepState.SUCCEEDED
    ranks = [each["rank"] for each in installation.report(sweep_id)["layers"]]
    assert sorted(ranks) == list(range(1, len(ranks) + 1))
    assert len(ranks) >= 4
