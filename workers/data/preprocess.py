"""Turns stored samples into one model input: layout, resize, centre crop, dtype, scale, mean, std, in this order."""

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from service.domain.errors import InvalidInput
from service.domain.layers import TensorSpec
from service.domain.settings import Preprocessing
from service.inspection.formats import quoted
from workers.data.conversion import check_dtype, check_finite, converted, model_dtype
from workers.data.geometry import center_crop, resize, resized_size, to_gray
from workers.data.stored import Array, ArraySpec, Indices

Layout = Literal["NCHW", "NHWC"]
Axis = TypeVar("Axis")
_CHANNEL_COUNTS = (1, 3, 4)
_LARGEST_SIDE = 8192


@dataclass(frozen=True)
class InputPlan:
    """How one array becomes one model input; ``plan_input`` makes it, with all checks that need no samples."""

    array: str
    stored: ArraySpec
    spec: TensorSpec
    preprocessing: Preprocessing

    def apply(self, samples: Array | list[Array], indices: Indices) -> Array:
        """The model input for a batch, C-contiguous; raises InvalidInput for samples that do not fit the model."""
        placed = self._placed(samples)
        check_shape(self, placed.shape[1:])
        values = self._normalised(placed)
        result = converted(values, model_dtype(self.spec), self.array)
        check_finite(result, self.array, indices)
        return np.ascontiguousarray(result)

    @property
    def is_image(self) -> bool:
        """Whether a sample has the three axes of an image."""
        return len(self.stored.shape) == 3

    @property
    def model_layout(self) -> Layout:
        """Where the model has its channels; NCHW unless only the last axis can be them."""
        shape = self.spec.shape
        if len(shape) == 4 and shape[3] in _CHANNEL_COUNTS and shape[1] not in _CHANNEL_COUNTS:
            return "NHWC"
        return "NCHW"

    @property
    def stored_layout(self) -> Layout:
        """Where the stored images have their channels."""
        return "NHWC" if self.stored.encoded else self.preprocessing.layout or self.model_layout

    @property
    def to_gray(self) -> bool:
        """Whether RGB images are made gray, because the model takes one channel."""
        return self.stored.encoded and len(self.spec.shape) == 4 and self.spec.shape[self.channel_axis] == 1

    @property
    def channel_axis(self) -> int:
        """The axis of a batch of model inputs that holds the channels."""
        return 3 if self.is_image and self.model_layout == "NHWC" else 1

    def result_shape(self) -> tuple[int | None, ...]:
        """The shape of one sample as the model gets it, without the sample axis; None where the samples decide."""
        if not self.is_image:
            return self.stored.shape
        height, width, channels = _moved(self.stored.shape, self.stored_layout, "NHWC")
        size = (height, width)
        channels = 1 if self.to_gray else channels
        wanted, crop = self.preprocessing.resize, self.preprocessing.center_crop
        if isinstance(wanted, tuple):
            size = wanted
        elif wanted is not None:
            size = (None, None) if height is None or width is None else resized_size(height, width, wanted)
        if crop is not None:
            size = (crop, crop) if isinstance(crop, int) else crop
        return _moved((*size, channels), "NHWC", self.model_layout)

    def _placed(self, samples: Array | list[Array]) -> Array:
        given = self.preprocessing
        if isinstance(samples, np.ndarray) and given.resize is None and given.center_crop is None:
            if not self.is_image or self.stored_layout == self.model_layout:
                return samples
            return np.moveaxis(samples, 3, 1) if self.stored_layout == "NHWC" else np.moveaxis(samples, 1, 3)
        images = [self._shaped(np.moveaxis(each, 0, 2) if self.stored_layout == "NCHW" else each) for each in samples]
        sizes = sorted({each.shape[:2] for each in images})
        if len(sizes) > 1:
            raise InvalidInput(
                f"the images differ in size, for example {sizes[0][0]} × {sizes[0][1]} and {sizes[-1][0]} × "
                f"{sizes[-1][1]} pixels; give preprocessing with resize and center_crop, "
                'e.g. {"resize": 256, "center_crop": 224}',
                field="preprocessing.resize",
                code="different-sizes",
            )
        stacked = np.stack(images)
        return np.moveaxis(stacked, 3, 1) if self.model_layout == "NCHW" else stacked

    def _shaped(self, image: Array) -> Array:
        if self.to_gray:
            image = to_gray(image)
        if self.preprocessing.resize is not None:
            image = resize(image, self.preprocessing.resize)
        if self.preprocessing.center_crop is not None:
            image = center_crop(image, self.preprocessing.center_crop)
        return image

    def _normalised(self, values: Array) -> Array:
        given = self.preprocessing
        if given.dtype is not None:
            values = converted(values, np.dtype(given.dtype), self.array)
        if given.scale is None and given.mean is None and given.std is None:
            return values
        result = values.astype(np.float32)
        if given.scale is not None:
            result *= np.float32(given.scale)
        if given.mean is not None:
            result -= self._per_channel(given.mean, result.ndim)
        if given.std is not None:
            result /= self._per_channel(given.std, result.ndim)
        return result

    def _per_channel(self, values: tuple[float, ...], axes: int) -> npt.NDArray[np.float32]:
        vector = np.array(values, dtype=np.float32)
        if len(values) == 1:
            return vector
        return vector.reshape([-1 if axis == self.channel_axis else 1 for axis in range(axes)])


def plan_input(array: str, stored: ArraySpec, spec: TensorSpec, preprocessing: Preprocessing) -> InputPlan:
    """Plan one model input; raises InvalidInput where array, preprocessing and input cannot fit together."""
    plan = InputPlan(array, stored, spec, preprocessing)
    _check_geometry(plan)
    check_dtype(array, stored.dtype, spec, preprocessing)
    shape = plan.result_shape()
    check_shape(plan, shape)
    for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        channels = shape[plan.channel_axis - 1] if len(shape) >= plan.channel_axis else None
        if values is not None and len(values) != 1 and len(values) != channels:
            message = (
                f"preprocessing.{name} has {len(values)} values, but array {quoted(array)} has {channels} channels"
            )
            raise InvalidInput(message, field=f"preprocessing.{name}", code="bad-preprocessing")
    return plan


def check_shape(plan: InputPlan, shape: tuple[int | None, ...]) -> None:
    """Raise InvalidInput where samples of this shape do not fit the model's input, with what would help."""
    wanted = plan.spec.shape[1:]
    if _fits(shape, wanted):
        return
    message = (
        f"array {quoted(plan.array)} gives samples of shape {_shown(shape)}, "
        f"but the model's input {quoted(plan.spec.name)} takes {_shown(wanted)}"
    )
    raise InvalidInput(message + _hint(plan, shape, wanted), field="dataset", code="shape-mismatch")


def _hint(plan: InputPlan, shape: tuple[int | None, ...], wanted: tuple[int | str | None, ...]) -> str:
    if len(shape) != 3 or len(wanted) != 3:
        return ""
    if plan.preprocessing.layout is None and not plan.stored.encoded and _fits(_moved(shape, "NHWC", "NCHW"), wanted):
        return '; the samples seem to be stored as NHWC: give preprocessing {"layout": "NHWC"}'
    if plan.preprocessing.layout is None and not plan.stored.encoded and _fits(_moved(shape, "NCHW", "NHWC"), wanted):
        return '; the samples seem to be stored as NCHW: give preprocessing {"layout": "NCHW"}'
    *size, channels = _moved(wanted, plan.model_layout, "NHWC")
    *_, given = _moved(shape, plan.model_layout, "NHWC")
    if _fits((given,), (channels,)) and all(isinstance(each, int) for each in size):
        return f'; give preprocessing with resize, e.g. {{"resize": [{size[0]}, {size[1]}]}}'
    return ""


def _check_geometry(plan: InputPlan) -> None:
    given = plan.preprocessing
    for name in ("layout", "resize", "center_crop"):
        value = getattr(given, name)
        field = f"preprocessing.{name}"
        if value is not None and not plan.is_image:
            message = f"{field} needs images (three axes for a sample), but array {quoted(plan.array)} has the shape "
            raise InvalidInput(message + _shown(plan.stored.shape), field=field, code="bad-preprocessing")
        if isinstance(value, tuple) and not all(1 <= each <= _LARGEST_SIDE for each in value):
            message = f"{field} is {value}; height and width must be from 1 to {_LARGEST_SIDE}"
            raise InvalidInput(message, field=field, code="bad-preprocessing")
    if plan.stored.encoded and given.layout == "NCHW":
        message = "preprocessing.layout is NCHW, but image files are decoded as NHWC; leave layout out"
        raise InvalidInput(message, field="preprocessing.layout", code="bad-preprocessing")
    kept = plan.stored.dtype == np.uint8 or plan.stored.dtype.kind == "f"
    if given.resize is not None and not kept:
        message = f"preprocessing.resize takes uint8 or floats, but array {quoted(plan.array)} is {plan.stored.dtype}"
        raise InvalidInput(message, field="preprocessing.resize", code="bad-preprocessing")


def _fits(shape: tuple[int | str | None, ...], wanted: tuple[int | str | None, ...]) -> bool:
    if len(shape) != len(wanted):
        return False
    pairs = zip(shape, wanted, strict=True)
    return all(not isinstance(have, int) or not isinstance(want, int) or have == want for have, want in pairs)


def _moved(shape: tuple[Axis, ...], source: Layout, target: Layout) -> tuple[Axis, ...]:
    if source == target:
        return shape
    return (shape[2], *shape[:2]) if source == "NHWC" else (*shape[1:], shape[0])


def _shown(shape: tuple[int | str | None, ...]) -> str:
    return "(" + ", ".join("?" if each is None else str(each) for each in shape) + ")"
