"""What a worker says of its plugin libraries: those that load, and why the others do not."""

import json
import subprocess
from pathlib import Path

import pytest

from service.domain.settings import BackendName
from tests.workers.plugins import broken_library, library
from workers.backends.protocol import Capability, LibraryState, PluginLibraries
from workers.capabilities import (
    PUBLISHED,
    capability_of,
    device_for,
    from_document,
    probe,
    probe_in_child,
    queues_of,
    to_document,
)
from workers.models.onnx_libraries import content_of

CRASH = """#include <stdlib.h>
__attribute__((constructor)) static void crash(void) { abort(); }
"""


def onnxruntime_of(capabilities: list[Capability]) -> Capability:
    (found,) = [each for each in capabilities if each.backend is BackendName.ONNXRUNTIME]
    return found


@pytest.fixture
def crashing(tmp_path: Path) -> Path:
    """A library that ends the process that loads it."""
    source, made = tmp_path / "crash.c", tmp_path / "crash.so"
    source.write_text(CRASH)
    try:
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(made), str(source)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no gcc")
    return made


def test_each_library_is_told_with_its_content_or_with_what_is_wrong(tmp_path: Path, crashing: Path) -> None:
    paths = (library(), tmp_path / "nowhere.so", broken_library(tmp_path), crashing)
    found = onnxruntime_of(probe(PluginLibraries(onnxruntime=paths)))
    assert found.available, "the worker goes on without them"
    assert [each.path for each in found.libraries] == [str(each) for each in paths]
    good, missing, broken, crashed = found.libraries
    assert (good.sha256, good.reason) == (content_of(library()), None)
    assert missing.reason == "it cannot be read: No such file or directory"
    assert "Failed to load library broken.so" in str(broken.reason)
    assert str(crashed.reason).startswith("loading it ended the process")
    assert broken.sha256 is crashed.sha256 is None


def test_a_child_that_is_asked_reads_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_CUSTOM_OP_LIBRARIES", str(tmp_path / "nowhere.so"))
    (found,) = onnxruntime_of(probe_in_child()).libraries
    assert found.reason == "it cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("wanted", "queues"),
    [
        ("auto", ["data", "torch", "torch-cuda", "onnxruntime", "onnxruntime-cpu"]),
        ("cpu", ["data", "torch", "torch-cpu", "onnxruntime", "onnxruntime-cpu"]),
        ("cuda:0", ["data", "torch", "torch-cuda", "onnxruntime"]),
    ],
)
def test_a_worker_serves_the_queues_of_its_device(wanted: str, queues: list[str]) -> None:
    capabilities = [
        Capability(BackendName.TORCH, True, ("cpu", "cuda:0"), {}),
        Capability(BackendName.ONNXRUNTIME, True, ("cpu",), {}),
        Capability(BackendName.TENSORRT, False, (), {}, "it is not installed"),
    ]
    assert queues_of(capabilities, wanted) == queues


def test_a_capability_is_the_same_after_its_journey_as_json() -> None:
    capability = Capability(
        BackendName.ONNXRUNTIME, True, ("cpu",), {"onnx": "1"}, libraries=(LibraryState("/a.so", None, "broken"),)
    )
    assert from_document(to_document(capability)) == capability


def test_auto_is_the_first_gpu_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = device_for.__wrapped__  # what is cached is the machine's own answer
    for devices, expected in ((("cpu", "cuda:0", "cuda:1"), "cuda:0"), (("cpu",), "cpu")):
        published = Capability(BackendName.TORCH, True, devices, {})
        monkeypatch.setenv(PUBLISHED, json.dumps([to_document(published)]))
        assert capability_of(BackendName.TORCH) == published
        assert asked(BackendName.TORCH, "auto") == expected
        assert asked(BackendName.TORCH, "cuda:1") == "cuda:1"


def test_what_nobody_published_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PUBLISHED, raising=False)
    assert capability_of(BackendName.ONNXRUNTIME).available
