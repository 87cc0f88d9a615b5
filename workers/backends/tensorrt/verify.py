"""Tries the backend on this machine: a tiny network, built in each way, against ONNX Runtime's fake quantization."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from service.domain.layers import FP32, Layer, Operation, Variant, controls
from workers.backends.onnxruntime import OnnxRuntimeBackend
from workers.backends.protocol import Array, Evaluated, OpenedModel, OpenSettings, Tensors
from workers.backends.tensorrt.backend import TensorRTBackend
from workers.backends.tensorrt.seam import EngineMaker

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
tiny (float[n,3,16,16] x) => (float[n,16] y) {
  [conv1] a = Conv <pads=[1,1,1,1]> (x, w1)
  [relu1] b = Relu(a)
  [conv2] c = Conv <pads=[1,1,1,1]> (b, w2)
  [add] d = Add(b, c)
  [relu2] e = Relu(d)
  [pool] p = GlobalAveragePool(e)
  [flatten] f = Flatten(p)
  [fc] y = MatMul(f, w3)
}"""
WEIGHTS = {"w1": (32, 3, 3, 3), "w2": (32, 32, 3, 3), "w3": (32, 16)}
SAMPLES = 16
# int8 rounds one input in some thousands to the other neighbour where sums are formed in another order
TOLERANCE = {True: 0.02, False: 0.001}
"""Relative root mean square difference that is allowed, for a variant with int8 layers, and for fp32."""
MUST_BE_INT8 = {Operation.CONV, Operation.LINEAR, Operation.MATMUL}
"""TensorRT may keep any other single layer in floating point: that is reported, and no fault."""


@dataclass(frozen=True)
class Check:
    """One variant in one way. ``good``: the engine is what was asked for and computes what it should."""

    way: str
    variant: str
    good: bool
    found: str


def verify(make: Callable[[str], EngineMaker], folder: Path, *, device: str, implicit: bool) -> list[Check]:
    """Every variant of the tiny network: fp32, all int8, and each layer alone.

    ``folder`` holds the model and what engines are kept; an empty one makes every engine anew.
    """
    path = folder / "tiny.onnx"
    path.write_bytes(tiny_network())
    samples = {"x": np.random.default_rng(1).normal(size=(SAMPLES, 3, 16, 16)).astype(np.float32)}
    reference = _calibrated(OnnxRuntimeBackend().open(path, OpenSettings()), samples)
    settings = OpenSettings(device=device, implicit_int8=implicit)
    model = _calibrated(TensorRTBackend(make, folder).open(path, settings), samples)
    layers = {each.id: each for each in model.facts.layers}
    variants = [each for each in controls(layers) if each.name != "fp32_repeated"]
    variants += [Variant(name=each, int8=frozenset({each})) for each in layers]
    wanted = {each.variant.name: each for each in reference.evaluate([samples], variants)}
    way = "implicit" if implicit else "explicit"
    return [
        _check(way, each, wanted[each.variant.name], layers.get(each.variant.name))
        for each in model.evaluate([samples], variants)
    ]


def tiny_network() -> bytes:
    """Its ONNX file, with fixed random weights."""
    model = onnx.parser.parse_model(NETWORK)
    generator = np.random.default_rng(0)
    for name, shape in WEIGHTS.items():
        value = generator.normal(size=shape) / np.sqrt(np.prod(shape) / shape[0])
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return bytes(model.SerializeToString())


def _calibrated(model: OpenedModel, samples: Tensors) -> OpenedModel:
    amax: dict[str, float] = {}

    def see(edge: str, tensor: Array) -> None:
        amax[edge] = max(amax.get(edge, 0.0), float(np.abs(tensor).max()))

    model.observe([samples], see)
    model.set_amax(amax)
    return model


def _check(way: str, found: Evaluated, wanted: Evaluated, layer: Layer | None) -> Check:
    name = found.variant.name
    if found.outputs is None or wanted.outputs is None:
        reason = str(found.failure or wanted.failure)
        optional = layer is not None and layer.op not in MUST_BE_INT8 and reason.startswith("not realised")
        return Check(way, name, optional, reason)
    difference = relative_difference(found.outputs, wanted.outputs)
    allowed = TOLERANCE[name != FP32]
    said = f"realised; differs from ONNX Runtime by {difference:.2g} of its output (at most {allowed:g} is allowed)"
    return Check(way, name, bool(difference <= allowed), said)


def relative_difference(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    """Root mean square of the difference over that of the wanted, over all outputs together, in float64."""
    errors = [found[name].astype(np.float64) - each.astype(np.float64) for name, each in wanted.items()]
    difference = sum(float(np.sum(np.square(each))) for each in errors)
    size = sum(float(np.sum(np.square(each.astype(np.float64)))) for each in wanted.values())
    return float(np.sqrt(difference / size)) if size else float(difference > 0)


def verify_installed() -> list[Check]:
    """With the TensorRT of this machine, in each way that it offers; one failed check where there is none."""
    from functools import partial
    from tempfile import TemporaryDirectory

    from workers.backends.tensorrt.backend import native_maker

    capability = TensorRTBackend().capability()
    if not capability.available:
        return [Check("-", "-", False, capability.reason or "not available")]
    from workers.backends.tensorrt.implicit import offers_implicit

    device = capability.devices[0]
    checks: list[Check] = []
    for implicit in (False, True):
        if implicit and not offers_implicit():
            continue
        with TemporaryDirectory(prefix="quantsieve-tensorrt-") as folder:
            checks += verify(partial(native_maker, Path(folder)), Path(folder), device=device, implicit=implicit)
    return checks
