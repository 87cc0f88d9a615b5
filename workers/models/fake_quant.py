"""Symmetric int8 fake quantization in NumPy: the arithmetic of Q followed by DQ, range [-128, 127], zero point 0."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

LEVELS = 127.0
# an amax this small or smaller means "always zero"; the same bound as pytorch-quantization's (2^-24)
SMALLEST_AMAX = 2.0**-24


def scale_of(amax: float) -> np.float32:
    """The scale, amax / 127; 1.0 for a tensor that is always zero, so that zero stays zero and nothing becomes NaN."""
    return np.float32(1.0) if amax <= SMALLEST_AMAX else np.float32(amax / LEVELS)


def quantize(values: Floats, axis: int | None) -> tuple[npt.NDArray[np.int8], Floats]:
    """The int8 levels of finite values, and the scale: shape (), or one for each index of ``axis``, which stays."""
    levels, scale = _rounded(values, axis)
    return levels.astype(np.int8), scale


def fake_quantize(values: Floats, axis: int | None) -> Floats:
    """Round to 256 levels by the values' own largest magnitude: one scale, or one for each index of ``axis``.

    Halves round to even, as in ONNX's QuantizeLinear, TensorRT and PyTorch.
    """
    levels, scale = _rounded(values, axis)
    dequantized: Floats = (levels * scale).astype(np.float32)
    return dequantized


def _rounded(values: Floats, axis: int | None) -> tuple[Floats, Floats]:
    magnitude = np.abs(values)
    if axis is None:
        amax = np.asarray(magnitude.max(initial=0.0))
    else:
        others = tuple(index for index in range(values.ndim) if index != axis % values.ndim)
        amax = magnitude.max(axis=others, keepdims=True, initial=0.0)
    scale = np.where(amax <= SMALLEST_AMAX, 1.0, amax / LEVELS).astype(np.float32)
    levels: Floats = np.clip(np.rint(values / scale), -128, 127)
    return levels, scale
