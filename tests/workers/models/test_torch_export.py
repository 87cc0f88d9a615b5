from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from service.domain.errors import RejectedFile
from tests.workers.models import torch_networks as networks
from workers.models.torch_export import read_archive

X = torch.randn(4, 3, 8, 8)


def test_folding_counts_and_keeps_the_function(tmp_path: Path) -> None:
    module = networks.ConvNet()
    path = networks.save(module, (X,), tmp_path / "m.pt2")
    folded, kept = read_archive(path, fuse_bn=True), read_archive(path, fuse_bn=False)
    assert (folded.folded_batch_norms, kept.folded_batch_norms) == (2, 0)
    torch.testing.assert_close(folded.module(X), module(X), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kept.module(X), module(X))


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_keep_their_function(tmp_path: Path, groups: int) -> None:
    module = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=groups), nn.BatchNorm2d(6))
    nn.init.uniform_(module[1].running_var, 0.5, 2.0)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 5, 5)
    program = read_archive(networks.save(module, (x,), tmp_path / "m.pt2"), fuse_bn=True)
    assert program.folded_batch_norms == (1 if groups == 1 else 0)
    torch.testing.assert_close(program.module(x), module(x), atol=1e-5, rtol=1e-5)


def test_a_norm_over_another_axis_than_the_features_is_not_folded(tmp_path: Path) -> None:
    module, x = networks.Sequence(), torch.randn(2, 6, 6)
    program = read_archive(networks.save(module, (x,), tmp_path / "m.pt2"), fuse_bn=True)
    assert program.folded_batch_norms == 0
    torch.testing.assert_close(program.module(x), module(x))


def test_a_fixed_batch_is_known_and_a_free_one_is_named(tmp_path: Path) -> None:
    fixed = read_archive(networks.save(networks.ConvNet(), (X,), tmp_path / "f.pt2"), fuse_bn=True)
    free = read_archive(networks.save(networks.ConvNet(), (X,), tmp_path / "d.pt2", dynamic=True), fuse_bn=True)
    assert (fixed.batch_size, free.batch_size) == (4, None)
    assert fixed.inputs[0].shape == (4, 3, 8, 8)
    assert isinstance(free.inputs[0].shape[0], str)
    assert [each.name for each in fixed.outputs] == ["output"]


def test_no_node_changes_a_tensor_in_place(tmp_path: Path) -> None:
    program = read_archive(networks.save(networks.ConvNet(), (X,), tmp_path / "m.pt2"), fuse_bn=True)
    mutable = [n.name for n in program.module.graph.nodes if n.op == "call_function" and "_." in str(n.target)]
    assert mutable == []


def test_inputs_and_outputs_have_the_names_of_the_signature(tmp_path: Path) -> None:
    inputs = (torch.randn(3, 6), True, torch.randn(3, 6))
    program = read_archive(networks.save(networks.Answers(), inputs, tmp_path / "m.pt2"), fuse_bn=True)
    assert [each.name for each in program.inputs] == ["x", "y"]
    assert [each.name for each in program.outputs] == ["logits", "extra.output_0", "extra.output_1"]


def test_what_is_no_archive_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"not an archive")
    with pytest.raises(RejectedFile, match=r"torch\.export cannot load this archive"):
        read_archive(tmp_path / "m.pt2", fuse_bn=True)


class NormOfBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, None, None, training=True)


class RandomDropout(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.5, training=True)


@pytest.mark.parametrize(
    ("module", "reason"),
    [(NormOfBatch(), "keeps no running statistics"), (RandomDropout(), "training mode")],
    ids=["batch statistics", "dropout"],
)
def test_networks_that_do_not_infer_are_rejected(tmp_path: Path, module: nn.Module, reason: str) -> None:
    path = networks.save(module, (torch.randn(4, 3),), tmp_path / "m.pt2")
    with pytest.raises(RejectedFile, match=reason):
        read_archive(path, fuse_bn=True)


def test_a_network_in_training_mode_is_rejected(tmp_path: Path) -> None:
    exported = torch.export.export(networks.ConvNet().train(), (X,))
    torch.export.save(exported, tmp_path / "m.pt2")
    with pytest.raises(RejectedFile, match="training mode"):
        read_archive(tmp_path / "m.pt2", fuse_bn=True)
