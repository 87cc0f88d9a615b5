"""Resizing and cropping, against Pillow itself and the rules of torchvision."""

import numpy as np
import pytest
from PIL import Image

from service.domain.errors import InvalidInput
from workers.data.geometry import center_crop, resize, resized_size, to_gray

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (37, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (37, 50, 16, (16, 21)),  # 16 · 50 / 37 = 21.6, cut to 21 as torchvision does
        (50, 37, 16, (21, 16)),
        (10, 10, 16, (16, 16)),
        (37, 50, (8, 9), (8, 9)),
    ],
)
def test_a_number_is_the_shorter_side(height: int, width: int, size: int, expected: tuple[int, int]) -> None:
    assert resized_size(height, width, size) == expected


@pytest.mark.parametrize("size", [16, 64, (20, 11)], ids=["smaller", "larger", "both sides"])
def test_uint8_images_are_resized_as_pillow_does(size: int | tuple[int, int]) -> None:
    height, width = resized_size(37, 50, size)
    expected = np.asarray(Image.fromarray(PIXELS).resize((width, height), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(PIXELS, size), expected)


def test_float_images_are_resized_channel_by_channel_without_rounding() -> None:
    values = RNG.standard_normal((12, 10, 2))
    result = resize(values, (6, 5))
    channel = Image.fromarray(values[:, :, 1].astype(np.float32)).resize((5, 6), Image.Resampling.BILINEAR)
    assert (result.shape, result.dtype) == ((6, 5, 2), np.float32)
    np.testing.assert_array_equal(result[:, :, 1], np.asarray(channel))


@pytest.mark.parametrize("channels", [1, 4])
def test_uint8_images_of_other_channel_counts_stay_uint8(channels: int) -> None:
    image = RNG.integers(0, 256, (8, 8, channels), dtype=np.uint8)
    result = resize(image, 4)
    assert (result.shape, result.dtype) == ((4, 4, channels), np.uint8)


def test_an_image_of_the_right_size_is_not_touched() -> None:
    assert resize(PIXELS, (37, 50)) is PIXELS


def test_a_long_strip_is_not_blown_up() -> None:
    with pytest.raises(InvalidInput, match="8192 × 8192000 pixels; at most 65535") as caught:
        resize(np.zeros((1, 1000, 3), np.uint8), 8192)
    assert caught.value.field == "preprocessing.resize"


@pytest.mark.parametrize(
    ("height", "width", "size", "top", "left"),
    [(8, 8, 4, 2, 2), (9, 8, 4, 2, 2), (11, 8, 4, 4, 2), (4, 4, 4, 0, 0), (6, 9, (2, 3), 2, 3)],
)
def test_the_crop_is_the_middle_as_torchvision_rounds_it(
    height: int, width: int, size: int | tuple[int, int], top: int, left: int
) -> None:
    image = np.arange(height * width).reshape(height, width, 1)
    crop = center_crop(image, size)
    h, w = (size, size) if isinstance(size, int) else size
    np.testing.assert_array_equal(crop, image[top : top + h, left : left + w])


def test_a_crop_larger_than_the_image_is_refused_with_what_would_help() -> None:
    with pytest.raises(InvalidInput, match="takes 38 × 38 pixels, but an image has 37 × 50; give a resize") as caught:
        center_crop(PIXELS, 38)
    assert caught.value.field == "preprocessing.center_crop"


def test_gray_is_pillows_luminance() -> None:
    np.testing.assert_array_equal(to_gray(PIXELS)[:, :, 0], np.asarray(Image.fromarray(PIXELS).convert("L")))
