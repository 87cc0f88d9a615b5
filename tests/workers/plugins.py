"""A real custom operator: networks with NegPos of onnxruntime-extensions, native code in a library of its own."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

HEAD = '<ir_version: 8, opset_import: ["" : 18, "ai.onnx.contrib" : 1]>\n'

# NegPos gives min(h, 0) and max(h, 0): a leaky activation, whose positive part two layers read
NETWORK = """g (float[N,4] x) => (float[N,3] scores)
<float[5,4] a = {1,0.5,0,0, 0,1,0,-0.25, 0,0,1,0, 0,0.75,0,1, 1,-1,1,-1}, float slope = {0.125},
 float[3,5] b = {1,0.5,-1,0.25,0.125, -1,1,0.5,-0.25,0.75, 0.5,-1,1,0.125,-0.5},
 float[3,5] c = {0.5,0.25,1,-1,0.75, 1,-1,0.25,0.5,-0.75, -0.5,1,0.125,1,0.25}>
{ [first] h = Gemm <transB = 1> (x, a)
  [split] negative, positive = ai.onnx.contrib.NegPos(h)
  [leak] l = Mul(negative, slope)
  [sum] r = Add(positive, l)
  [second] s = Gemm <transB = 1> (r, b)
  [side] t = Gemm <transB = 1> (positive, c)
  [total] scores = Add(s, t) }"""
LAYERS = ("first", "split", "sum", "second", "side", "total")
PLUGIN_EDGES = ("split:0", "split=>0", "split=>1")


def library() -> Path:
    """The library's file; skips the test where the package is not installed."""
    return Path(pytest.importorskip("onnxruntime_extensions").get_library_path())


def other_library(folder: Path) -> Path:
    """The same operators in a file with other content."""
    copy = folder / "other.so"
    shutil.copy(library(), copy)
    with copy.open("ab") as file:
        file.write(b"\0")  # a loader does not look behind the last section
    return copy


def broken_library(folder: Path) -> Path:
    """A file that no loader takes."""
    path = folder / "broken.so"
    path.write_bytes(b"this is no library")
    return path


def model_bytes(body: str = NETWORK) -> bytes:
    content: bytes = onnx.parser.parse_model(HEAD + body).SerializeToString()
    return content


def saved(folder: Path, body: str = NETWORK) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model_bytes(body))
    return path


def samples(count: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
