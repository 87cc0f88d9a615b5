"""Resizes and crops images of shape (height, width, channels), as torchvision does on PIL images."""

import numpy as np
from PIL import Image

from service.domain.errors import InvalidInput
from workers.data.stored import Array

Size = int | tuple[int, int]
"""The shorter side, or (height, width), in pixels."""

LONGEST_SIDE = 65_535


def resized_size(height: int, width: int, size: Size) -> tuple[int, int]:
    """(height, width) after resizing; an int keeps the ratio of the sides and cuts the longer one to whole pixels."""
    if isinstance(size, tuple):
        return size
    short, long = sorted((height, width))
    longer = int(size * long / short)
    return (size, longer) if height <= width else (longer, size)


def resize(image: Array, size: Size) -> Array:
    """Bilinear with antialiasing; uint8 stays uint8 (rounded), floats become float32."""
    height, width = resized_size(image.shape[0], image.shape[1], size)
    if max(height, width) > LONGEST_SIDE:
        message = (
            f"resize would make an image of {height} × {width} pixels; at most {LONGEST_SIDE} are taken for a side"
        )
        raise InvalidInput(message, field="preprocessing.resize", code="bad-preprocessing")
    if image.shape[:2] == (height, width):
        return image
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(_resized(image, height, width))
    plane = np.uint8 if image.dtype == np.uint8 else np.float32
    channels = [_resized(image[:, :, each].astype(plane), height, width) for each in range(image.shape[2])]
    return np.stack([np.asarray(each) for each in channels], axis=2)


def center_crop(image: Array, size: Size) -> Array:
    """The middle of an image; raises InvalidInput where the image is smaller than that."""
    height, width = (size, size) if isinstance(size, int) else size
    if image.shape[0] < height or image.shape[1] < width:
        raise InvalidInput(
            f"center_crop takes {height} × {width} pixels, but an image has {image.shape[0]} × {image.shape[1]}; "
            "give a resize that makes the images at least that large",
            field="preprocessing.center_crop",
            code="bad-preprocessing",
        )
    top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]


def to_gray(image: Array) -> Array:
    """The luminance (ITU-R 601-2) of an RGB image, of shape (height, width, 1)."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L"))[:, :, np.newaxis]


def _resized(plane: Array, height: int, width: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(plane))
    return image.resize((width, height), Image.Resampling.BILINEAR)
