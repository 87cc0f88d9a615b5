import zipfile
from pathlib import Path

import onnx

from tests.small_network import network
from tests.workers.exports.made import layer
from workers.exports.onnx_nodes import addressed, own_names


def test_names_that_stand_in_the_file_once_are_its_own(tmp_path: Path) -> None:
    model = network()
    for node, name in zip(model.graph.node, ("conv", "", "twice", "twice", "fc"), strict=True):
        node.name = name
    onnx.save(model, tmp_path / "model.onnx")
    assert own_names(tmp_path / "model.onnx") == {"conv", "fc"}


def test_an_archive_is_read_without_its_weights(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("model.onnx", network(external="weights.bin").SerializeToString())
        archive.writestr("weights.bin", b"")
    assert own_names(tmp_path / "model.zip") == {"conv", "relu", "pool", "flatten", "fc"}


def test_a_layer_is_addressed_by_its_exact_name_alone() -> None:
    found = addressed([layer("conv"), layer("conv1")], {"conv1", "CONV"})
    assert found.names == ("conv1",)
    assert [name for name, _ in found.unnamed] == ["conv"]
