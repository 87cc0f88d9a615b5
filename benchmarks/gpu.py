"""The torch engine on a CUDA device: a one-on sweep in fp32 evaluations of the same batch, naive beside the tree.

    python -m benchmarks.gpu

Networks are made here with random weights (the cost does not depend on them). Wall-clock time, the device synchronised.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from service.domain.layers import Variant
from tests.workers.backends.naive import run
from tests.workers.backends.ranges import calibrated
from workers.backends.protocol import OpenSettings
from workers.backends.torch_fake_quant import TorchBackend, TorchModel


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → the same."""
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


def network(width: int, blocks: int) -> nn.Module:
    """A residual network for 3-channel images."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *(Block(width) for _ in range(blocks)), *head).eval()


def seconds(work: Callable[[], None]) -> float:
    """The shortest of three runs."""
    found = []
    for _ in range(3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


def opened(module: nn.Module, folder: Path, x: np.ndarray) -> TorchModel:
    """The network on the device, with ranges from ``x``."""
    batch = torch.export.Dim("batch", min=2, max=4096)
    program = torch.export.export(module, (torch.from_numpy(x[:2]),), dynamic_shapes=({0: batch},))
    path = folder / "model.pt2"
    torch.export.save(program, path)
    model = TorchBackend().open(path, OpenSettings(device="cuda:0"))
    assert isinstance(model, TorchModel)
    return calibrated(model, {model.facts.inputs[0].name: x})


def main() -> None:
    """Print one table."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(
        f"{'network':24s} {'batch':>5s} {'layers':>6s} {'fp32 ms':>8s} {'naive':>7s} {'tree':>7s} {'tree/L':>7s}  MiB"
    )
    for width, blocks, size in ((16, 27, 32), (64, 8, 56)):
        for batch in (8, 64, 256):
            x = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)
            with tempfile.TemporaryDirectory() as folder:
                model = opened(network(width, blocks), Path(folder), x)
            report(f"{blocks} blocks of {width}, {size}px", model, {model.facts.inputs[0].name: x})


def report(title: str, model: TorchModel, batch: dict[str, np.ndarray]) -> None:
    """Measure one network at one batch size."""
    ids = [each.id for each in model.facts.layers]
    variants = [Variant(name=each, int8=frozenset({each})) for each in ids]
    session = model._session

    def fp32() -> None:
        session.select(frozenset())
        run(session, batch)

    def naive() -> None:
        for each in variants:
            session.select(each.int8)
            run(session, batch)

    def tree() -> None:
        for _ in model.evaluate([batch], variants):
            pass

    tree()  # the trial of stacking, and the kernels' own choices
    one = seconds(fp32)
    torch.cuda.reset_peak_memory_stats()
    fast = seconds(tree)
    peak = torch.cuda.max_memory_allocated() / 2**20
    slow, count = seconds(naive), len(next(iter(batch.values())))
    costs = f"{slow / one:7.1f} {fast / one:7.1f} {fast / one / len(ids):7.2f}"
    print(f"{title:24s} {count:5d} {len(ids):6d} {1000 * one:8.2f} {costs}  {peak:.0f}", flush=True)


if __name__ == "__main__":
    main()
