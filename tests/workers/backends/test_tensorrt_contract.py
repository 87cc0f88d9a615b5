"""Every call of TensorRT that the backend makes exists in NVIDIA's own bindings, of both majors.

No engine can be built without NVIDIA's libraries, which are not on PyPI: see docs/tensorrt.md for what is not tested.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers.backends.make_tensorrt_stubs import STUB, stub_text, united
from tests.workers.backends.tensorrt_bindings import ROOT, VERSIONS, Bindings, Missing, bindings

SOURCES = ROOT / "workers" / "backends" / "tensorrt"
ONLY_IN_10 = "implicit.py"


@pytest.fixture(scope="module", params=VERSIONS)
def installed(request) -> Bindings:
    return real(request.param)


def real(version: str) -> Bindings:
    try:
        return bindings(version)
    except Missing as reason:
        pytest.skip(f"the real bindings of TensorRT {version} cannot be had: {reason}")


def test_the_calls_bind_to_the_real_classes(installed, tmp_path) -> None:
    """The scenarios run where the real bindings are imported."""
    scenarios = "tests/workers/backends/tensorrt_scenarios.py"
    options = ["-o", "addopts=--import-mode=importlib", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}"]
    said = installed.run("-m", "pytest", *options, scenarios)
    assert " passed" in said
    assert ("skipped" in said) is (installed.major > 10)


def test_the_sources_type_check_against_each_major(installed, tmp_path) -> None:
    """On 11 only what is implicit may fail."""
    calling = [str(each) for each in sorted(SOURCES.glob("*.py")) if "import tensorrt as trt" in each.read_text()]
    assert len(calling) == len(("building", "execution", "implicit"))
    problems = type_checked(installed, tmp_path, calling)
    files = {each.partition(":")[0].rpartition("/")[2] for each in problems}
    assert files == (set() if installed.major <= 10 else {ONLY_IN_10}), problems


@pytest.mark.parametrize(
    ("real_text", "planted"),
    [
        ("create_builder_config()", "create_config()"),
        ("ignore_mismatch=False", "ignore_mismatches=False"),
        ("trt.BuilderFlag.TF32", "trt.BuilderFlag.FP32"),
        ("trt.OnnxParser(network, self._complaints)", "trt.OnnxParser(network)"),
        ("trt.Runtime(", "trt.InferRuntime("),
    ],
    ids=["method", "keyword", "enum", "argument", "class"],
)
def test_a_misspelt_call_does_not_type_check(real_text, planted, tmp_path) -> None:
    text = (SOURCES / "building.py").read_text()
    assert real_text in text
    (tmp_path / "building.py").write_text(text.replace(real_text, planted))
    assert type_checked(real(VERSIONS[0]), tmp_path, [str(tmp_path / "building.py")])


def test_the_committed_stubs_are_those_of_the_bindings() -> None:
    assert STUB.read_text() == stub_text(united(*(real(version).dump() for version in VERSIONS)))


def type_checked(installed: Bindings, folder: Path, files: list[str]) -> list[str]:
    """The type checker's complaints; TensorRT is what this version's bindings document, all else is unknown to it."""
    stub = folder / "stubs" / "tensorrt" / "__init__.pyi"
    stub.parent.mkdir(parents=True, exist_ok=True)
    stub.write_text(stub_text(installed.dump()))
    configuration = folder / "mypy.ini"
    configuration.write_text(
        "[mypy]\ncheck_untyped_defs = True\nfollow_imports = skip\nignore_missing_imports = True\n"
        "[mypy-numpy.*]\nfollow_imports_for_stubs = True\n"
    )
    cache = ["--cache-dir", str(installed.folder / "mypy")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(configuration), *cache, *files],
        capture_output=True,
        text=True,
        env=os.environ | {"MYPYPATH": str(stub.parents[1])},
        cwd=ROOT,
    )
    assert done.returncode in (0, 1), done.stderr + done.stdout
    return [line for line in done.stdout.splitlines() if ": error:" in line]
