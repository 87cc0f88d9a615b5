"""The script is loaded by Polygraphy's own loader and runs on a network that records; TensorRT itself is not here."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from service.domain.costs import Precision
from service.domain.layers import Operation
from tests.workers.exports.made import HOSTILE, layer, mixed
from workers.exports.polygraphy_script import to_script


class RecordingLayer:
    def __init__(self, name: str, outputs: int) -> None:
        self.name, self.num_outputs = name, outputs
        self.precision: str | None = None
        self.types: dict[int, str] = {}

    def set_output_type(self, index: int, kind: str) -> None:
        self.types[index] = kind


class RecordingNetwork:
    def __init__(self, *names: str, outputs: int = 1) -> None:
        self.layers = [RecordingLayer(name, outputs) for name in names]
        self.num_layers = len(self.layers)

    def get_layer(self, index: int) -> RecordingLayer:
        return self.layers[index]

    @property
    def set(self) -> dict[str, tuple[str, dict[int, str]]]:
        return {each.name: (each.precision, each.types) for each in self.layers if each.precision is not None}


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands for the bindings: the names that the script uses of them, as TensorRT 10 has them."""
    module: Any = ModuleType("tensorrt")
    module.float16, module.float32 = "float16", "float32"
    module.ILayer = type("ILayer", (), {"precision": None})
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def postprocess(script: bytes, network: RecordingNetwork, folder: Path) -> None:
    """As ``polygraphy convert --trt-network-postprocess-script`` does it."""
    loaders = pytest.importorskip("polygraphy.backend.trt")
    common = pytest.importorskip("polygraphy.backend.common")
    path = folder / "polygraphy_script.py"
    path.write_bytes(script)
    function = common.InvokeFromScript(str(path), name="postprocess")
    builder, processed = loaders.PostprocessNetwork(("builder", network), func=function)()
    assert (builder, processed) == ("builder", network)


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.parametrize(
    ("precision", "kind", "flags"),
    [(Precision.FP32, "float32", "--int8 \\"), (Precision.FP16, "float16", "--int8 --fp16 \\")],
    ids=["fp32", "fp16"],
)
def test_only_the_fallback_layers_are_set_and_each_of_their_outputs(
    precision: Precision, kind: str, flags: str, tmp_path: Path
) -> None:
    layers = [layer("conv1"), layer("block.conv1"), layer("conv2")]
    network = RecordingNetwork("conv1", "relu", "block.conv1", "conv2", outputs=2)
    script = to_script(mixed(layers, "conv1", precision=precision), {each.id for each in layers})
    postprocess(script, network, tmp_path)
    assert network.set == {"conv1": (kind, {0: kind, 1: kind})}
    assert f"-o model.engine {flags}" in script.decode()


@pytest.mark.usefixtures("tensorrt")
def test_hostile_names_are_found_as_they_are(tmp_path: Path) -> None:
    script = to_script(mixed([layer(name) for name in HOSTILE], *HOSTILE), set(HOSTILE))
    network = RecordingNetwork(*HOSTILE, "a")
    postprocess(script, network, tmp_path)
    assert set(network.set) == set(HOSTILE)


@pytest.mark.usefixtures("tensorrt")
def test_a_layer_that_the_network_lacks_is_an_error(tmp_path: Path) -> None:
    script = to_script(mixed([layer("conv1")], "conv1"), {"conv1"})
    with pytest.raises(LookupError, match="conv1"):
        postprocess(script, RecordingNetwork("conv1 + relu"), tmp_path)


def test_a_tensorrt_without_precision_of_layers_is_told_so(tensorrt: Any, tmp_path: Path) -> None:
    del tensorrt.ILayer.precision
    script = to_script(mixed([layer("conv1")], "conv1"), {"conv1"})
    with pytest.raises(RuntimeError, match="strongly typed"):
        postprocess(script, RecordingNetwork("conv1"), tmp_path)


def test_a_node_without_a_name_of_its_own_is_a_comment() -> None:
    script = to_script(mixed([layer("Conv_0\nx")], "Conv_0\nx"), set()).decode()
    assert '# "Conv_0\\nx" is to stay in floating point, but is not here: its node has no name' in script
    assert "FLOATING = []" in script


def test_a_plugin_stays_in_float32(tensorrt: Any, tmp_path: Path) -> None:
    layers = [layer("a"), layer("plug", Operation.PLUGIN)]
    script = to_script(mixed(layers, "a", "plug", precision=Precision.FP16), {"a", "plug"})
    network = RecordingNetwork("a", "plug")
    postprocess(script, network, tmp_path)
    assert network.set == {"a": ("float16", {0: "float16"}), "plug": ("float32", {0: "float32"})}
    assert "--plugins <library>" in script.decode()
