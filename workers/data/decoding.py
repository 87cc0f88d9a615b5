"""Decodes image files to RGB, with a limit on what they unpack to."""

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from service.domain.errors import RejectedFile
from workers.data.stored import Array

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MOST_PIXELS = 64 * 2**20
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa")


def decode_image(name: str, encoded: bytes) -> Array:
    """The image as uint8 (height, width, 3); raises RejectedFile, by the image's name, where it cannot be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    message = f"image {name} has {image.width} × {image.height} pixels; at most {MOST_PIXELS} are taken"
                    raise RejectedFile(message, code="image-too-large")
                if image.mode not in _EIGHT_BIT_MODES:
                    message = f"image {name} has the pixel format {image.mode}; 8 bits for each colour are needed"
                    raise RejectedFile(message, code="image-pixels")
                return np.array(image.convert("RGB"), dtype=np.uint8)
    except UnidentifiedImageError as error:
        message = f"image {name} is none of {', '.join(FORMATS)}, or is damaged"
        raise RejectedFile(message, code="image-damaged") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise RejectedFile(f"image {name} cannot be decoded ({error})", code="image-damaged") from error
