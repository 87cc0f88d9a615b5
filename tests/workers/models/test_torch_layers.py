from pathlib import Path

import pytest
import torch
from torch import nn

from service.domain.layers import Operation
from tests.workers.models import torch_networks as networks
from workers.models.torch_export import read_archive
from workers.models.torch_layers import Found, LayerFinder

X = torch.randn(2, 3, 8, 8)
CUBE = torch.randn(2, 4, 4, 4, 4)


def layers(
    tmp_path: Path, module: nn.Module, *inputs: torch.Tensor, dynamic: bool = False, fuse_bn: bool = True
) -> list[Found]:
    path = networks.save(module, inputs, tmp_path / "model.pt2", dynamic=dynamic)
    return LayerFinder(read_archive(path, fuse_bn=fuse_bn)).find()


def names(found: list[Found]) -> list[str]:
    return [each.layer.name for each in found]


@pytest.mark.parametrize("fuse_bn", [True, False], ids=["folded", "unfolded"])
def test_a_residual_network_gives_its_layers_with_the_skip_edge_alone(tmp_path: Path, fuse_bn: bool) -> None:
    found = layers(tmp_path, networks.ConvNet(), X, fuse_bn=fuse_bn)
    assert names(found) == ["conv1", "conv2", "add", "avg_pool", "fc"]
    assert [each.operands for each in found] == [(0,), (0,), (1,), (0,), (0,)]
    add = found[2].layer
    assert add.activations == (f"{add.id}:1",)


@pytest.mark.parametrize("dynamic", [True, False], ids=["free batch", "fixed batch"])
def test_costs_are_per_sample(tmp_path: Path, dynamic: bool) -> None:
    conv1, conv2, add, pool, fc = (each.layer for each in layers(tmp_path, networks.ConvNet(), X, dynamic=dynamic))
    assert (conv1.macs, conv2.macs, add.macs, pool.macs, fc.macs) == (64 * 8 * 27, 64 * 8 * 72, 0, 0, 40)
    assert conv1.output_shape == (8, 8, 8)
    assert (conv2.weight, conv2.weight_shape, conv2.weight_bytes) == ("conv2.weight", (8, 8, 3, 3), 4 * 8 * 8 * 9)


def test_every_convolution_is_a_layer_with_its_output_channels(tmp_path: Path) -> None:
    found = layers(tmp_path, networks.Convolutions(), CUBE.flatten(3))
    plain, transposed = Operation.CONV, Operation.CONV_TRANSPOSE
    assert [each.layer.op for each in found] == [plain] * 3 + [transposed] * 3
    axes = [each.weight.axis for each in found if each.weight is not None]
    assert axes == [0, 0, 0, 1, None, 1]


def test_multiply_accumulates_of_grouped_and_transposed_convolutions(tmp_path: Path) -> None:
    found = {each.layer.name: each.layer for each in layers(tmp_path, networks.Convolutions(), CUBE.flatten(3))}
    assert found["c2"].macs == 2 * 14 * 8 * 2 * 9
    assert found["t2"].macs == 4 * 16 * 4 * 4 * 9
    assert found["t3"].macs == 64 * 4 * 6 * 27


def test_fused_attention_gives_its_two_products(tmp_path: Path) -> None:
    found = layers(tmp_path, networks.Attention(), torch.randn(2, 5, 8))
    assert names(found) == ["qkv", "matmul", "matmul_1", "out", "add"]
    assert [each.operands for each in found] == [(0,), (0, 1), (0, 1), (0,), (0,)]
    assert found[1].layer.macs == 5 * 5 * 8


@pytest.mark.parametrize("masking", ["none", "causal", "mask"])
def test_attention_written_out_computes_the_same(tmp_path: Path, masking: str) -> None:
    module = networks.Attention(causal=masking == "causal", masked=masking == "mask")
    x = torch.randn(2, 5, 8)
    program = read_archive(networks.save(module, (x,), tmp_path / "m.pt2"), fuse_bn=True)
    assert not program.module.graph.find_nodes(
        op="call_function", target=torch.ops.aten.scaled_dot_product_attention.default
    )
    torch.testing.assert_close(program.module(x), module(x), atol=1e-6, rtol=1e-5)


def test_every_average_pool_is_a_layer_and_so_are_the_sums_of_its_branches(tmp_path: Path) -> None:
    found = layers(tmp_path, networks.Pools(), CUBE)
    pools = [each for each in found if each.layer.op is Operation.AVERAGE_POOL]
    assert len(pools) == 6
    sums = [each for each in found if each.layer.op is Operation.ADD]
    assert [each.operands for each in sums] == [(0, 1), (0, 1)]


def test_a_written_out_gelu_adds_no_layer(tmp_path: Path) -> None:
    assert names(layers(tmp_path, networks.TanhGelu(), torch.randn(2, 6))) == ["fc"]


def test_constant_factors_are_weights_on_either_side(tmp_path: Path) -> None:
    found = layers(tmp_path, networks.Products(), torch.randn(2, 3, 6))
    assert [(each.layer.op, each.operands) for each in found] == [
        (Operation.LINEAR, (0,)),
        (Operation.LINEAR, (1,)),
        (Operation.MATMUL, (0, 1)),
    ]
    assert [each.weight and each.weight.axis for each in found] == [1, 0, None]
    assert [each.layer.macs for each in found] == [3 * 4 * 6, 5 * 4 * 3, 5 * 5 * 4]


def test_a_layer_used_twice_counts_twice_with_names_of_their_own(tmp_path: Path) -> None:
    found = layers(tmp_path, networks.Shared(), torch.randn(2, 6))
    assert names(found) == ["fc", "fc_1", "fc_1_1"]
    assert len({each.layer.id for each in found}) == 3


def test_a_computed_weight_is_a_weight(tmp_path: Path) -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 3)))
    (found,) = layers(tmp_path, module, torch.randn(2, 3, 8))
    assert found.layer.name == "0"
    assert found.weight is not None
    torch.testing.assert_close(found.weight.value, module[0].weight.detach())


def test_core_aten_archives_have_the_same_layers(tmp_path: Path) -> None:
    exported = torch.export.export(networks.ConvNet().eval(), (X,)).run_decompositions()
    torch.export.save(exported, tmp_path / "core.pt2")
    program = read_archive(tmp_path / "core.pt2", fuse_bn=True)
    assert program.folded_batch_norms == 2
    found = LayerFinder(program).find()
    assert names(found)[:3] == ["conv1", "conv2", "add"]
    assert names(found)[-1] == "fc"
    assert [each.weight and each.weight.axis for each in found if each.layer.op is Operation.LINEAR] == [1]


def test_products_that_cannot_be_measured_are_named_with_the_reason(tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.einsum("btc,bsc->bts", self.rnn(x)[0], x)

    path = networks.save(Recurrent(), (torch.randn(2, 3, 4),), tmp_path / "m.pt2")
    finder = LayerFinder(read_archive(path, fuse_bn=True))
    found = finder.find()
    assert [each.reason for each in finder.skipped][:1] == ["recurrent layers are not supported"]
    assert len(finder.skipped) + len(found) == 2
