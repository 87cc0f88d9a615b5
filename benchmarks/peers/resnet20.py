"""ResNet-20 for CIFAR-10 as a torch module, for tools that take no exported program. Names are those of the program.

He et al., Deep Residual Learning for Image Recognition (2016), section 4.2: shortcuts without parameters (option A).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.measure import Plain, Task


class Shortcut(nn.Module):
    """Every second pixel, and ``extra`` channels of zeros, half before and half after."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) → (n, c + extra, h / 2, w / 2)."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra // 2))


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else Shortcut(outputs - inputs)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, h, w), or half of h and w where the channels double."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class ResNet20(nn.Module):
    """19 convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.pool = nn.AvgPool2d(8)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 32, 32) → (n, 10) logits."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.pool(x)))


def loaded(task: Task) -> ResNet20:
    """With the program's weights, in evaluation mode; raises ValueError where its outputs are not the program's."""
    torch.set_num_threads(1)
    program = torch.export.load(task.pt2)
    model = ResNet20().eval()
    model.load_state_dict(program.state_dict)
    few = torch.from_numpy(task.inputs()[0][:8])
    with torch.no_grad():
        if not torch.allclose(model(few), program.module()(few), rtol=1e-4, atol=1e-4):
            raise ValueError(f"{Path(task.pt2).name}: its outputs are not those of benchmarks/peers/resnet20.py")
    return model


def weight_layers(model: nn.Module) -> list[str]:
    """The names of the convolutions and the linear layer, in the order in which they run."""
    return [name for name, each in model.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]


def outputs(model: Any, batches: list[Tensor]) -> Tensor:
    """(n, 10) logits of all batches."""
    with torch.no_grad():
        return torch.cat([model(batch) for batch in batches])


def plain(model: nn.Module, batches: list[Tensor]) -> Plain:
    """The module as it is, in fp32."""
    return Plain(lambda: outputs(model, batches))
