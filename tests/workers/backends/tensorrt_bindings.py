"""NVIDIA's real Python bindings of TensorRT, importable without the engine, for tests and for the type checker.

The bindings are on PyPI; the libraries that they load are not. Empty stand-ins let them import, so that every class,
method, argument and enum is there, and nothing can run. Two majors cannot live in one process: each has a child.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSIONS = ("10.16.1.11", "11.4.0.106")
ROOT = Path(__file__).parents[3]
CACHE = ROOT / "build" / "tensorrt-bindings"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOL_NAMES = (
    "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL createNvOnnxParser_INTERNAL "
    "createNvOnnxParserRefitter_INTERNAL getNvOnnxParserVersion getBuilderPluginRegistry getPluginRegistry "
    "initLibNvInferPlugins"
)
SECONDS = 300


class Missing(Exception):
    """The bindings cannot be had on this machine, and why."""


@dataclass(frozen=True)
class Bindings:
    """One version of the bindings, installed in a folder of its own."""

    version: str
    folder: Path

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def run(self, *arguments: str, text: str = "") -> str:
        """What a child Python in which ``tensorrt_bindings`` is this version prints; RuntimeError where it fails."""
        paths = [str(self.folder / "site"), str(ROOT)]
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(self.folder / "lib"),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            input=text,
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-4000:] + done.stdout[-2000:])
        return done.stdout

    def dump(self) -> dict[str, Any]:
        """Every class with its members as the bindings document them (see tensorrt_dump.py)."""
        parsed: dict[str, Any] = json.loads(self.run("-m", "tests.workers.backends.tensorrt_dump"))
        return parsed


def bindings(version: str) -> Bindings:
    """That version, installed at the first call; raises Missing with the reason where it cannot be."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = CACHE / f"{version}-{python}"
    if not (folder / "ready").exists():
        _install(version, folder / "site")
        _make_stand_ins(version.partition(".")[0], folder / "lib")
        (folder / "ready").touch()
    return Bindings(version, folder)


def _install(version: str, target: Path) -> None:
    package = f"tensorrt-cu12-bindings=={version}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    _run([*command, "--upgrade", "--target", str(target), package], f"pip cannot install {package}")


def _make_stand_ins(major: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "stand_in.c"
    source.write_text("\n".join(f"void *{symbol}(void) {{ return 0; }}" for symbol in SYMBOL_NAMES.split()) + "\n")
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        _run(command, f"gcc cannot make the stand-in for {name}")


def _run(command: list[str], problem: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{problem}: {error}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"it ended with {done.returncode}").splitlines()[-1]
        raise Missing(f"{problem}: {last}")
