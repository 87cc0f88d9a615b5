"""The digits network: a small MobileNet, and the rescaling that leaves its channels as unequal as real ones are."""

import torch
from torch import Tensor, nn

CLASSES = 10
SIDE = 16


class Separable(nn.Module):
    """Depthwise 3x3, then pointwise 1x1, each with BatchNorm; the input is added back where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.pointwise_bn = nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Features of shape (batch, outputs, height / stride, width / stride)."""
        y = torch.relu(self.depthwise_bn(self.depthwise(x)))
        y = self.pointwise_bn(self.pointwise(y))
        return torch.relu(x + y if self.residual else y)


class DigitsNet(nn.Module):
    """Class scores (batch, 10) of images (batch, 1, 16, 16)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(width)
        self.block1 = Separable(width, width)
        self.block2 = Separable(width, 2 * width, stride=2)
        self.block3 = Separable(2 * width, 2 * width)
        self.block4 = Separable(2 * width, 2 * width)
        self.block5 = Separable(2 * width, 3 * width, stride=2)
        self.block6 = Separable(3 * width, 3 * width)
        self.pool = nn.AvgPool2d(4)
        self.classifier = nn.Linear(3 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """The scores, before any softmax."""
        x = torch.relu(self.stem_bn(self.stem(x)))
        x = self.block1(x)
        x = self.block2(x)
        x = self.block3(x)
        x = self.block4(x)
        x = self.block5(x)
        x = self.block6(x)
        scores: Tensor = self.classifier(self.pool(x).flatten(1))
        return scores


@torch.no_grad()
def rescale_channels(block: Separable, factors: Tensor) -> None:
    """Multiply each channel between the two convolutions of ``block`` by a positive factor; the second one undoes it.

    ReLU commutes with a positive factor, so the network computes the same function; only its ranges change. It is the
    inverse of cross-layer equalization (Nagel et al., 2019, equation 7). ``factors``: shape (channels,).
    """
    if not bool((factors > 0).all()):
        raise ValueError(f"factors must be positive, got a smallest one of {float(factors.min())}")
    block.depthwise_bn.weight.mul_(factors)
    block.depthwise_bn.bias.mul_(factors)
    block.pointwise.weight.div_(factors.view(1, -1, 1, 1))  # (outputs, channels, 1, 1)
