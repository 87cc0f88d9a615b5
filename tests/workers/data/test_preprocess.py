"""From stored samples to a model input: layout, resize, centre crop, dtype, scale, mean, std, in this order."""

from typing import Any

import numpy as np
import pytest

from service.domain.errors import InvalidInput
from service.domain.layers import TensorSpec
from service.domain.settings import Preprocessing
from workers.data.geometry import center_crop, resize
from workers.data.preprocess import InputPlan, plan_input
from workers.data.stored import ENCODED_IMAGES, ArraySpec

RNG = np.random.default_rng(0)


def model_input(*shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="input", dtype=dtype, shape=("batch", *shape))


def plan(samples: np.ndarray, spec: TensorSpec, **given: Any) -> InputPlan:
    return plan_input("x", ArraySpec(samples.shape[1:], samples.dtype), spec, Preprocessing(**given))


def applied(samples: np.ndarray, spec: TensorSpec, **given: Any) -> np.ndarray:
    result = plan(samples, spec, **given).apply(samples, np.arange(len(samples)))
    assert result.flags.c_contiguous
    assert result.dtype == np.dtype(spec.dtype)
    return result


PIXELS = RNG.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
FLOATS = RNG.standard_normal((2, 3, 6, 8)).astype(np.float32)


def test_without_preprocessing_samples_are_taken_as_they_are() -> None:
    np.testing.assert_array_equal(applied(FLOATS, model_input(3, 6, 8)), FLOATS)
    np.testing.assert_array_equal(applied(FLOATS.astype(np.float64), model_input(3, "h", "w")), FLOATS)


def test_nhwc_becomes_nchw() -> None:
    result = applied(PIXELS, model_input(3, 6, 8), layout="NHWC", dtype="float32")
    np.testing.assert_array_equal(result, PIXELS.transpose(0, 3, 1, 2).astype(np.float32))


def test_nchw_becomes_the_nhwc_of_the_model() -> None:
    result = applied(FLOATS, model_input(6, 8, 3), layout="NCHW")
    np.testing.assert_array_equal(result, FLOATS.transpose(0, 2, 3, 1))


def test_scale_comes_before_mean_and_std() -> None:
    mean, std = [0.5, 0.25, 0.125], [2.0, 4.0, 8.0]
    result = applied(PIXELS, model_input(3, 6, 8), layout="NHWC", scale=1 / 255, mean=mean, std=std)
    values = PIXELS.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(1 / 255)
    expected = (values - np.float32(mean).reshape(3, 1, 1)) / np.float32(std).reshape(3, 1, 1)
    np.testing.assert_array_equal(result, expected)


def test_the_channels_of_an_nhwc_model_are_the_last_axis() -> None:
    result = applied(PIXELS, model_input(6, 8, 3), mean=[1, 2, 3])
    np.testing.assert_array_equal(result, PIXELS.astype(np.float32) - np.float32([1, 2, 3]))


def test_one_mean_is_for_all_channels_and_for_what_is_no_image() -> None:
    np.testing.assert_array_equal(applied(FLOATS, model_input(3, 6, 8), mean=[0.5]), FLOATS - np.float32(0.5))
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(applied(vectors, model_input(3), std=[2.0]), vectors / 2)
    np.testing.assert_array_equal(applied(vectors, model_input(3), mean=[0, 1, 2]), vectors - np.float32([0, 1, 2]))


def test_resize_and_crop_come_before_the_numbers_change() -> None:
    result = applied(PIXELS, model_input(3, 4, 4), layout="NHWC", resize=5, center_crop=4, scale=0.5)
    expected = np.stack([center_crop(resize(each, 5), 4) for each in PIXELS]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(result, expected * np.float32(0.5))


def test_resizing_works_on_images_that_are_stored_as_nchw() -> None:
    result = applied(FLOATS, model_input(3, 3, 4), resize=[3, 4])
    expected = np.stack([resize(each.transpose(1, 2, 0), (3, 4)).transpose(2, 0, 1) for each in FLOATS])
    np.testing.assert_array_equal(result, expected)


def test_encoded_images_are_placed_as_the_model_takes_them() -> None:
    images = [PIXELS[0], PIXELS[1]]
    for spec, axes in ((model_input(3, 6, 8), (0, 3, 1, 2)), (model_input(6, 8, 3), (0, 1, 2, 3))):
        encoded = plan_input("images", ENCODED_IMAGES, spec, Preprocessing(dtype="float32"))
        np.testing.assert_array_equal(encoded.apply(images, np.arange(2)), PIXELS.transpose(axes).astype(np.float32))


def test_encoded_images_become_gray_for_a_model_of_one_channel() -> None:
    encoded = plan_input("images", ENCODED_IMAGES, model_input(1, 6, 8), Preprocessing(scale=1.0))
    result = encoded.apply([PIXELS[0]], np.arange(1))
    assert result.shape == (1, 1, 6, 8)


def test_encoded_images_of_different_sizes_are_asked_about() -> None:
    encoded = plan_input("images", ENCODED_IMAGES, model_input(3, "h", "w"), Preprocessing(scale=1.0))
    with pytest.raises(InvalidInput, match="6 × 8 and 9 × 9 pixels; give preprocessing with resize") as caught:
        encoded.apply([PIXELS[0], np.zeros((9, 9, 3), np.uint8)], np.arange(2))
    assert caught.value.field == "preprocessing.resize"


def test_encoded_images_of_a_wrong_size_are_asked_about() -> None:
    encoded = plan_input("images", ENCODED_IMAGES, model_input(3, 4, 4), Preprocessing(scale=1.0))
    with pytest.raises(InvalidInput, match=r'takes \(3, 4, 4\); give .* resize, e\.g\. {"resize": \[4, 4\]}'):
        encoded.apply([PIXELS[0]], np.arange(1))


MISFITS = {
    "one axis too many": ((2, 3, 1), (3,), {}, "dataset", r"shape \(3, 1\).*takes \(3\)"),
    "another length": ((2, 4), (3,), {}, "dataset", r"shape \(4\).*takes \(3\)"),
    "stored as NHWC": ((2, 6, 8, 3), (3, 6, 8), {}, "dataset", 'stored as NHWC: give preprocessing {"layout": "NHWC"}'),
    "stored as NCHW": ((2, 3, 6, 8), (6, 8, 3), {}, "dataset", 'stored as NCHW: give preprocessing {"layout": "NCHW"}'),
    "another size": ((2, 3, 6, 8), (3, 4, 4), {}, "dataset", r'e\.g\. {"resize": \[4, 4\]}'),
    "resized to another size": ((2, 3, 6, 8), (3, 4, 4), {"resize": (5, 5)}, "dataset", r"shape \(3, 5, 5\)"),
    "two means for three channels": (
        *((2, 3, 6, 8), (3, 6, 8), {"mean": (1, 2)}),
        *("preprocessing.mean", "mean has 2 values, but array 'x' has 3 channels"),
    ),
    "no std at all": ((2, 3, 6, 8), (3, 6, 8), {"std": ()}, "preprocessing.std", "has 0 values"),
    "three means for vectors of four": ((2, 4), (4,), {"mean": (1, 2, 3)}, "preprocessing.mean", "has 4 channels"),
    "layout of vectors": ((2, 4), (4,), {"layout": "NHWC"}, "preprocessing.layout", r"has the shape \(4\)"),
    "resize of vectors": ((2, 4), (4,), {"resize": 4}, "preprocessing.resize", "needs images"),
    "crop of vectors": ((2, 4), (4,), {"center_crop": 4}, "preprocessing.center_crop", "needs images"),
    "a side of nothing": (
        *((2, 3, 6, 8), (3, 6, 8), {"resize": (0, 4)}),
        *("preprocessing.resize", r"is \(0, 4\); height and width must be from 1 to 8192"),
    ),
    "a side that is too long": (
        *((2, 3, 6, 8), (3, 6, 8), {"center_crop": (4, 9000)}),
        *("preprocessing.center_crop", r"\(4, 9000\)"),
    ),
}


@pytest.mark.parametrize(("stored", "shape", "given", "field", "words"), MISFITS.values(), ids=MISFITS)
def test_what_cannot_fit_is_said_before_any_sample_is_read(
    stored: tuple[int, ...], shape: tuple[int, ...], given: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        plan(np.zeros(stored, np.float32), model_input(*shape), **given)
    assert caught.value.field == field


def test_whole_numbers_other_than_uint8_are_not_resized() -> None:
    with pytest.raises(InvalidInput, match="resize takes uint8 or floats, but array 'x' is int64"):
        plan(np.zeros((2, 3, 6, 8), np.int64), model_input(3, 4, 4), resize=(4, 4), dtype="float32")


def test_a_layout_of_image_files_is_refused() -> None:
    with pytest.raises(InvalidInput, match="image files are decoded as NHWC; leave layout out"):
        plan_input("images", ENCODED_IMAGES, model_input(3, 4, 4), Preprocessing(layout="NCHW", scale=1.0))


def test_token_ids_go_through_unchanged() -> None:
    tokens = np.array([[1, 2, 30_000]], np.int32)
    np.testing.assert_array_equal(applied(tokens, model_input("length", dtype="int64")), tokens)
