"""The flags are read here as a shell and then trtexec read them; no trtexec runs."""

import subprocess
from pathlib import Path

import pytest

from service.domain.costs import Precision
from service.domain.layers import Operation
from tests.workers.exports.made import HOSTILE, layer, mixed
from workers.exports.trtexec import to_text


def arguments(text: bytes, folder: Path) -> list[str]:
    """What a shell hands to a program called trtexec."""
    (folder / "trtexec.txt").write_bytes(text)
    script = "trtexec() { printf '%s\\0' \"$@\"; }\n. ./trtexec.txt"
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, check=True)
    assert done.stderr == b""
    assert [each.name for each in folder.iterdir()] == ["trtexec.txt"]
    return done.stdout.decode().split("\0")[:-1]


def value(flags: list[str], flag: str) -> str:
    (found,) = [each for each in flags if each.startswith(f"--{flag}=")]
    return found.partition("=")[2]


def pairs(text: str) -> dict[str, str]:
    """What trtexec makes of a list: cut at each comma; two quotes protect a name, else it ends at the last colon."""
    found = {}
    for part in text.split(","):
        quoted = part.split("'")
        assert len(quoted) in (1, 3)
        name, kind = ("".join(quoted[:2]), quoted[2][1:]) if len(quoted) == 3 else part.rsplit(":", 1)
        assert "*" not in name
        found[name] = kind
    return found


@pytest.mark.parametrize(
    ("precision", "kinds"), [(Precision.FP32, ["--int8"]), (Precision.FP16, ["--int8", "--fp16"])], ids=str
)
def test_fallback_layers_are_named_in_both_lists_and_the_others_in_none(
    precision: Precision, kinds: list[str], tmp_path: Path
) -> None:
    layers = [layer(name) for name in ("/conv1/Conv", "/layer1/conv1/Conv", "node_conv2d:1")]
    decision = mixed(layers, "/conv1/Conv", "node_conv2d:1", precision=precision)
    flags = arguments(to_text(decision, {each.id for each in layers}), tmp_path)
    assert [each for each in flags if each in ("--int8", "--fp16")] == kinds
    assert "--calib=calibration.cache" in flags
    assert "--precisionConstraints=obey" in flags
    assert value(flags, "layerPrecisions") == f"/conv1/Conv:{precision},'node_conv2d:1':{precision}"
    wanted = {"/conv1/Conv": precision.value, "node_conv2d:1": precision.value}
    assert pairs(value(flags, "layerPrecisions")) == pairs(value(flags, "layerOutputTypes")) == wanted


def test_without_a_fallback_layer_there_is_no_constraint(tmp_path: Path) -> None:
    flags = arguments(to_text(mixed([layer("a")]), {"a"}), tmp_path)
    assert not [each for each in flags if "layer" in each or "precision" in each]


def test_hostile_names_are_given_whole_or_said_to_be_missing(tmp_path: Path) -> None:
    layers = [layer(name) for name in HOSTILE]
    text = to_text(mixed(layers, *HOSTILE), set(HOSTILE))
    given = pairs(value(arguments(text, tmp_path), "layerPrecisions"))
    lost = {name for name in HOSTILE if any(mark in name for mark in ",'*\n")}
    assert set(given) == set(HOSTILE) - lost
    assert text.decode().count("trtexec takes no name with") == len(lost)


@pytest.mark.parametrize("nodes", [frozenset[str](), frozenset({"other"})], ids=["no names", "other names"])
def test_a_node_without_a_name_of_its_own_is_no_flag_but_a_warning(nodes: frozenset[str], tmp_path: Path) -> None:
    text = to_text(mixed([layer("Conv_0")], "Conv_0"), nodes)
    assert not [each for each in arguments(text, tmp_path) if "layerPrecisions" in each]
    assert '"Conv_0": its node has no name of its own in the file' in text.decode()


def test_the_file_says_what_tensorrt_11_needs_instead() -> None:
    text = to_text(mixed([layer("a")], "a"), {"a"}).decode()
    assert "TensorRT 11 has none of these flags" in text
    assert "Q/DQ" in text


def test_a_plugin_stays_in_fp32_and_its_library_is_asked_for(tmp_path: Path) -> None:
    layers = [layer("a"), layer("plug", Operation.PLUGIN)]
    text = to_text(mixed(layers, "a", "plug", precision=Precision.FP16), {"a", "plug"})
    assert "--layerPrecisions=a:fp16,plug:fp32" in arguments(text, tmp_path)
    assert "--dynamicPlugins=" in text.decode()
    assert "Plugins" not in to_text(mixed([layer("a")], "a"), {"a"}).decode()
