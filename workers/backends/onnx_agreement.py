"""Whether a torch graph computes what ONNX Runtime does: in fp32 to the end, and in int8 layer by layer.

In int8 each layer is compared by itself, its output's error from the same fp32 inputs. Outputs with every layer in int8
could not tell: a value that rounds to the next level somewhere moves all that follow, so that two runtimes which both
do what they should differ by a good part of what int8 does at all, and one wrong layer among many would hide in that.
"""

from collections.abc import Mapping

import numpy as np

from service.domain.errors import InvalidInput
from service.domain.layers import FP32, Variant
from service.inspection.formats import quoted
from workers.backends.protocol import OpenedModel, OutputError, Tensors
from workers.metrics.difference import relative_rms

FP32_TOLERANCE = 1e-4
"""Relative RMS. The order of summation moves a deep network's output by 1e-7 to 2e-5, int8 of one layer by 1e-3 on."""

INT8_TOLERANCE = 0.05
"""Of the RMS of a layer's int8 error. Values on the edge of two levels may fall either way, which moved no layer of
three networks by more than 2.5e-4; a wrong scale or axis changes the error by its own size."""

HOW = "so that probes would describe another model; measure it with method: exact"


def refuse_other_outputs(reference: Tensors, found: Tensors) -> None:
    """Compare fp32 outputs by name; raises InvalidInput (``method``) with the difference that was measured."""
    for name, expected in reference.items():
        if expected.dtype.kind != "f":
            continue  # a class that is read off scores jumps where two of them tie
        if expected.shape != found[name].shape:
            raise _refusal(f"output {quoted(name)} has shape {found[name].shape} in torch and {expected.shape} there")
        difference = relative_rms(found[name], expected)
        if not difference <= FP32_TOLERANCE:
            raise _refusal(
                f"output {quoted(name)} differs by {difference:.1e} of its size (root mean square), more than "
                f"{FP32_TOLERANCE:.0e}"
            )


def refuse_other_errors(reference: Mapping[str, OutputError], found: Mapping[str, OutputError]) -> None:
    """Compare layers' own int8 errors; raises InvalidInput (``method``) that names the first layer that differs.

    Layers that cannot run in int8 in either are passed over.
    """
    for layer, expected in reference.items():
        other = found[layer]
        if expected.failure is not None and other.failure is not None:
            continue
        failure = expected.failure or other.failure
        if failure is not None:
            raise _refusal(f"layer {quoted(layer)} runs in int8 in one of them only: {failure}")
        mine, theirs = (float(np.sqrt(each.noise)) for each in (other, expected))
        # what fp32 may differ by is no error of int8
        allowed = INT8_TOLERANCE * theirs + FP32_TOLERANCE * float(np.sqrt(expected.signal))
        if not abs(mine - theirs) <= allowed:
            size = float(np.sqrt(expected.signal)) or 1.0
            raise _refusal(
                f"layer {quoted(layer)} errs in int8 by {mine / size:.2e} of its output in torch and by "
                f"{theirs / size:.2e} there"
            )


def fp32_outputs(model: OpenedModel, batch: Tensors) -> Tensors:
    """What the model gives in fp32; raises InvalidInput where it does not run."""
    (done,) = model.evaluate([batch], [Variant(name=FP32, int8=frozenset())])
    if done.outputs is None:
        raise InvalidInput(f"the model does not run in fp32: {done.failure}", field="method")
    return done.outputs


def _refusal(what: str) -> InvalidInput:
    return InvalidInput(
        f"method: the torch graph of this model does not agree with ONNX Runtime: {what}, {HOW}", field="method"
    )
