"""The file is run as Python here, and given to ModelOpt where that is installed (it is no part of any extra)."""

from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from torch import nn

from service.domain.layers import Operation
from service.domain.settings import WeightGranularity
from tests.workers.exports.made import HOSTILE, layer, mixed, torch_layers
from tests.workers.exports.test_pytorch_quantization_list import Net
from tests.workers.models import torch_networks as networks
from workers.exports.mixed_precision import MixedPrecision
from workers.exports.modelopt_list import to_script


def read(script: bytes) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec(script, scope)
    return scope


def configured(script: bytes, name: str) -> dict[str, Any] | None:
    """What the list makes of a quantizer: the last entry that matches its name; None: off."""
    entries = read(script)["QUANTIZE_CONFIG"]["quant_cfg"]
    last = [each for each in entries if fnmatch(name, each["quantizer_name"])][-1]
    return None if last.get("enable") is False else last["cfg"]


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("net") / "net.pt2"
    return torch_layers(networks.save(Net(), (torch.randn(2, 3, 8, 8),), path))


def test_layers_in_int8_are_on_by_exact_name_and_all_else_is_off(layers: Any) -> None:
    script = to_script(mixed(layers, "conv1", "up"))
    for name in ("conv1.input_quantizer", "conv1.weight_quantizer", "up.weight_quantizer", "maxpool.input_quantizer"):
        assert configured(script, name) is None
    assert configured(script, "block.conv1.input_quantizer") == {"num_bits": 8, "axis": None}
    assert configured(script, "block.conv1.weight_quantizer") == {"num_bits": 8, "axis": 0}
    assert configured(script, "block.conv1.output_quantizer") is None
    assert configured(script, "pool.input_quantizer") == {"num_bits": 8, "axis": None}


def test_weights_have_the_scales_that_the_sweep_gave_them(layers: Any) -> None:
    assert configured(to_script(mixed(layers)), "up.weight_quantizer") == {"num_bits": 8, "axis": 1}
    grouped = layer("up", Operation.CONV_TRANSPOSE, weight_shape=(4, 2, 3, 3), output_shape=(8, 6, 6))
    assert configured(to_script(mixed([grouped])), "up.weight_quantizer") == {"num_bits": 8, "axis": None}
    per_tensor = MixedPrecision(layers, frozenset(), weights=WeightGranularity.PER_TENSOR)
    assert configured(to_script(per_tensor), "conv1.weight_quantizer") == {"num_bits": 8, "axis": None}


def test_modules_that_the_model_lacks_are_found(layers: Any) -> None:
    absent = read(to_script(mixed(layers, "conv1")))["absent"]
    assert absent(Net()) == []
    assert "fc" in absent(nn.Sequential(Net()))


def test_hostile_names_match_themselves_alone() -> None:
    script = to_script(mixed([layer(name) for name in (*HOSTILE, "fallback\nx")], "fallback\nx"))
    for name in HOSTILE:
        assert configured(script, f"{name}.weight_quantizer") == {"num_bits": 8, "axis": 0}
    for name in ("wildXcard", "ab", "Xa", "ax"):
        assert configured(script, f"{name}.weight_quantizer") is None
    assert '# Stay in floating point: "fallback\\nx".' in script.decode()


@pytest.mark.parametrize("floating", [("conv1", "up"), ("pool.avg_pool", "block.add"), ()], ids=["two", "pool", "none"])
def test_modelopt_quantizes_exactly_the_layers_in_int8(layers: Any, floating: tuple[str, ...]) -> None:
    mtq = pytest.importorskip(
        "modelopt.torch.quantization", reason="nvidia-modelopt is not installed (1 GB beside torch)"
    )
    config = read(to_script(mixed(layers, *floating)))["QUANTIZE_CONFIG"]
    model = mtq.quantize(Net().eval(), config, lambda made: made(torch.randn(2, 3, 8, 8)))
    paths = {"conv1", "conv11", "block.conv1", "up", "pool", "fc"} - {
        name.removesuffix(".avg_pool") for name in floating
    }
    wanted = {f"{path}.{kind}" for path in paths for kind in ("input_quantizer", "weight_quantizer")}
    quantizers = {name: each for name, each in model.named_modules() if name.endswith("_quantizer")}
    on = {name: each for name, each in quantizers.items() if each.is_enabled}
    assert set(on) == wanted - {"pool.weight_quantizer"}
    assert {each.num_bits for each in on.values()} == {8}
    assert {each.amax.numel() for name, each in on.items() if name.endswith("input_quantizer")} == {1}
    if "conv1" not in floating:
        assert on["up.weight_quantizer"].amax.shape == (1, 4, 1, 1)
