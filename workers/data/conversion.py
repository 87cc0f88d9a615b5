"""Which number types turn into which without a guess, and the values that no model input may hold."""

import numpy as np

from service.domain.errors import InvalidInput
from service.domain.layers import TensorSpec
from service.domain.settings import Preprocessing
from service.inspection.formats import quoted
from workers.data.stored import Array, Indices

DType = np.dtype[np.generic]


def model_dtype(spec: TensorSpec) -> DType:
    """The NumPy dtype of a model's input; raises InvalidInput where NumPy has none."""
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biuf":
        message = f"the model's input {quoted(spec.name)} takes {spec.dtype}, which an evaluation set cannot hold"
        raise InvalidInput(message, field="model", code="input-dtype")
    return dtype


def check_dtype(array: str, stored: DType, spec: TensorSpec, given: Preprocessing) -> None:
    """Raise InvalidInput where the stored numbers do not turn into the model's without a guess."""
    wanted = model_dtype(spec)
    dtype = stored if given.dtype is None else np.dtype(given.dtype)
    if stored.kind == "f" and dtype.kind in "iu":
        message = f"preprocessing.dtype {dtype} would cut off the fractions of array {quoted(array)} ({stored})"
        raise InvalidInput(message, field="preprocessing.dtype", code="bad-preprocessing")
    if given.scale is not None or given.mean is not None or given.std is not None:
        if given.dtype is not None and dtype.kind != "f":
            message = f"preprocessing.dtype {dtype} cannot hold what scale, mean and std give; leave it out, or float32"
            raise InvalidInput(message, field="preprocessing.dtype", code="bad-preprocessing")
        dtype = np.dtype(np.float32)
    if dtype == wanted or dtype.kind == "b" or ((dtype.kind == "f") == (wanted.kind == "f") and wanted.kind != "b"):
        return
    takes = f"model input {quoted(spec.name)} is {wanted}"
    if dtype.kind in "iu" and wanted.kind == "f" and given.dtype is None:
        message = (
            f"the dataset holds {stored} values in {quoted(array)}, {takes}: give preprocessing with scale, e.g. 1/255 "
            f"(0.00392156862745098), or dtype={wanted} to take the values as they are"
        )
        raise InvalidInput(message, field="preprocessing", code="ambiguous-dtype")
    message = f"array {quoted(array)} gives {dtype} values, {takes}; store the array as {wanted}"
    raise InvalidInput(message, field="dataset", code="dtype-mismatch")


def converted(values: Array, dtype: DType, array: str) -> Array:
    """The values in another dtype; raises InvalidInput for integers that it cannot hold."""
    if values.dtype == dtype:
        return values
    if values.dtype.kind in "iu" and dtype.kind in "iu" and values.size:
        low, high, limits = int(np.min(values)), int(np.max(values)), np.iinfo(dtype)  # type: ignore[type-var]
        if low < limits.min or high > limits.max:
            message = f"array {quoted(array)} holds values from {low} to {high}, which {dtype} cannot hold"
            raise InvalidInput(message, field="dataset", code="value-range")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is found there
        return values.astype(dtype)


def check_finite(values: Array, array: str, indices: Indices) -> None:
    """Raise InvalidInput where a model input holds NaN or infinity, by the first such sample."""
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if finite.all():
        return
    row = int(np.argmin(finite))
    kind = "NaN" if np.isnan(values[row]).any() else f"infinity (as {values.dtype})"
    message = f"array {quoted(array)} holds {kind} in sample {int(indices[row])}; inputs must be finite numbers"
    raise InvalidInput(message, field="dataset", code="not-finite")
