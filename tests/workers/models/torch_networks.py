"""Small networks, exported: one property each."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH = torch.export.Dim("batch", min=1, max=1024)


def save(module: nn.Module, inputs: tuple[Any, ...], path: Path, *, dynamic: bool = False) -> Path:
    """Export in inference mode; ``dynamic`` frees the first axis of every input."""
    shapes = tuple({0: BATCH} for _ in inputs) if dynamic else None
    torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=shapes), path)
    return path


class ConvNet(nn.Module):
    """Two convolutions with batch norms, a residual add in place, a pool, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)
        for norm in (self.bn1, self.bn2):
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(norm.weight, 0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(x))
        out += x
        return self.fc(F.adaptive_avg_pool2d(F.relu(out), 1).flatten(1))  # type: ignore[no-any-return]


class Convolutions(nn.Module):
    """One convolution of every kind, to vectors of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv1d(4, 6, 3, padding="same")
        self.c2 = nn.Conv2d(4, 8, 3, groups=2)
        self.c3 = nn.Conv3d(4, 6, 3)
        self.t1 = nn.ConvTranspose1d(4, 6, 3)
        self.t2 = nn.ConvTranspose2d(4, 8, 3, groups=2)
        self.t3 = nn.ConvTranspose3d(4, 6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        line, plane, space = x.flatten(2), x.flatten(3), x
        volume = x.reshape(x.shape[0], 4, 4, 4, 4)
        del space
        return (
            self.c1(line),
            self.c2(plane),
            self.c3(volume),
            self.t1(line),
            self.t2(plane),
            self.t3(volume),
        )


class Attention(nn.Module):
    """One head of fused attention, with an optional mask, between two linear layers."""

    def __init__(self, *, causal: bool = False, masked: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.causal = causal
        self.masked = masked

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        mask = None
        if self.masked:
            # the first row sees nothing at all
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(-1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return x + self.out(attended)  # type: ignore[no-any-return]


class Pools(nn.Module):
    """Every average pool, over a pyramid of shapes."""

    def forward(self, x: Tensor) -> Tensor:
        line = F.avg_pool1d(x.flatten(2), 2)
        plane = F.avg_pool2d(x.flatten(3), 2)
        space = F.avg_pool3d(x, 2)
        pooled = (
            F.adaptive_avg_pool1d(line, 1),
            F.adaptive_avg_pool2d(plane, 1),
            F.adaptive_avg_pool3d(space, 1),
        )
        return sum(each.flatten(1) for each in pooled)  # type: ignore[return-value]


class TanhGelu(nn.Module):
    """A GELU written out: its additions are arithmetic on one tensor, no residual adds."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return 0.5 * y * (1 + torch.tanh(0.79788 * (y + 0.044715 * y**3)))  # type: ignore[no-any-return]


class Products(nn.Module):
    """A parameter multiplied on the right and on the left, and a product of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.right = nn.Parameter(torch.randn(6, 4))
        self.left = nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(self.left, torch.matmul(x, self.right))
        return torch.bmm(y, y.transpose(1, 2))


class Shared(nn.Module):
    """One linear layer used twice, beside another of the name that the second use would get."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.fc_1 = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_1(self.fc(torch.relu(self.fc(x))))  # type: ignore[no-any-return]


class Sequence(nn.Module):
    """A batch norm over the time axis of a linear layer's output: not to be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc(x))  # type: ignore[no-any-return]


class Answers(nn.Module):
    """Two inputs, an argument that the export fixes, outputs by name; it changes its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 3)
        self.b = nn.utils.parametrizations.weight_norm(nn.Linear(6, 2))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, flag: bool, y: Tensor) -> dict[str, Any]:
        x.sub_(1.0)
        first = self.a(x) if flag else x
        return {"logits": self.dropout(first), "extra": [self.b(y), x]}
