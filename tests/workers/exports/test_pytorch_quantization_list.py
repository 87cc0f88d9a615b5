"""The file is run on modules with pytorch-quantization's own quantizers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_quantization import quant_modules
from pytorch_quantization.nn import TensorQuantizer
from torch import Tensor, nn

from tests.workers.exports.made import HOSTILE, layer, mixed, torch_layers
from tests.workers.models import torch_networks as networks
from workers.exports.pytorch_quantization_list import to_script


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv1(x)  # type: ignore[no-any-return]


class Net(nn.Module):
    """Names within names (conv1, conv11, block.conv1), a pool that is a module and one that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv11 = nn.Conv2d(4, 4, 3, padding=1)
        self.block = Block()
        self.up = nn.ConvTranspose2d(4, 4, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.block(torch.relu(self.conv11(torch.relu(self.conv1(x))))), 2)
        return self.fc(self.pool(self.up(x)).flatten(1))  # type: ignore[no-any-return]


def quantized(make: Callable[[], nn.Module]) -> nn.Module:
    """A module made with quantizers."""
    quant_modules.initialize()
    try:
        return make()
    finally:
        quant_modules.deactivate()


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("net") / "net.pt2"
    return torch_layers(networks.save(Net(), (torch.randn(2, 3, 8, 8),), path))


def run(script: bytes, model: nn.Module) -> list[str]:
    """What the file's function says that it switched off."""
    scope: dict[str, Any] = {}
    exec(script, scope)
    found: list[str] = scope["disable_quantizers"](model)
    return found


def disabled(model: nn.Module) -> set[str]:
    return {name for name, each in model.named_modules() if isinstance(each, TensorQuantizer) and each._disabled}


@pytest.mark.parametrize(
    ("floating", "off"),
    [
        ({"conv1"}, {"conv1"}),
        ({"block.conv1", "fc"}, {"block.conv1", "fc"}),
        ({"up", "pool.avg_pool"}, {"up", "pool"}),
        ({"block.add", "avg_pool"}, set()),
        (set(), set()),
    ],
    ids=["one among its namesakes", "two", "transposed and pool", "no modules", "none"],
)
def test_exactly_the_quantizers_of_the_fallback_layers_are_off(layers: Any, floating: set[str], off: set[str]) -> None:
    model = quantized(Net)
    script = to_script(mixed(layers, *floating))
    names = {f"{path}.{kind}" for path in off for kind in ("_input_quantizer", "_weight_quantizer")}
    names -= {"pool._weight_quantizer"}
    assert set(run(script, model)) == disabled(model) == names


def test_a_module_called_in_both_precisions_is_off_and_said_to_be(tmp_path: Path) -> None:
    layers = torch_layers(networks.save(networks.Shared(), (torch.randn(2, 6),), tmp_path / "shared.pt2"))
    assert [each.name for each in layers] == ["fc", "fc_1", "fc_1_1"]
    script = to_script(mixed(layers, "fc_1"))
    model = quantized(networks.Shared)
    run(script, model)
    assert disabled(model) == {"fc._input_quantizer", "fc._weight_quantizer"}
    assert '# Called in both precisions in the sweep; in floating point here: "fc".' in script.decode()


def test_a_model_under_another_name_is_an_error_and_not_a_model_all_in_int8(layers: Any) -> None:
    model = nn.Sequential(quantized(Net))
    with pytest.raises(LookupError, match=r"conv1\._input_quantizer"):
        run(to_script(mixed(layers, "conv1")), model)
    assert disabled(model) == set()


def test_what_no_quantizer_stands_for_is_said(layers: Any) -> None:
    script = to_script(mixed(layers, "conv1")).decode()
    assert 'no call of a module with quantizers, so that they stay in floating point here: "block.add".' in script
    assert "An average pool has a quantizer where it is a module; a functional one has none." in script


def test_hostile_names_are_strings_and_comments_and_nothing_else() -> None:
    script = to_script(mixed([layer(name) for name in (*HOSTILE, "int8")], *HOSTILE))
    scope: dict[str, Any] = {}
    exec(script, scope)
    assert scope["QUANTIZERS"][::2] == [f"{name}._input_quantizer" for name in HOSTILE]
    assert script.isascii()
