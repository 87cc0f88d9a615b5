"""Opens zips of images in class folders; images are decoded when they are asked for."""

import zipfile
from pathlib import Path

import numpy as np

from service.domain.errors import RejectedFile
from service.inspection.formats import quoted
from service.inspection.image_listing import list_images
from service.inspection.zip_listing import DAMAGE, list_zip
from workers.data.decoding import decode_image
from workers.data.stored import ENCODED_IMAGES, Array, Indices, RawTensors

IMAGES = "images"
LARGEST_IMAGE_FILE = 256 * 2**20


class ImageZip:
    """The images of a zip, in an order in which the classes take turns."""

    def __init__(self, path: Path) -> None:
        listing = list_images(list_zip(path))
        self._archive = zipfile.ZipFile(path)
        self._images = listing.images
        self.samples = len(listing.images)
        self.specs = {IMAGES: ENCODED_IMAGES}
        self.targets: Array | None = np.array(listing.labels, dtype=np.int64)
        self.class_names = listing.class_names
        self.class_counts = listing.class_counts

    def batch(self, indices: Indices) -> RawTensors:
        """Decode the images at these positions."""
        return {IMAGES: [self._decode(self._images[index]) for index in indices.tolist()]}

    def _decode(self, entry: zipfile.ZipInfo) -> Array:
        name = quoted(entry.filename)
        if entry.file_size > LARGEST_IMAGE_FILE:
            message = f"image {name} is a file of {entry.file_size} bytes; at most {LARGEST_IMAGE_FILE} are taken"
            raise RejectedFile(message, code="image-too-large")
        try:
            encoded = self._archive.read(entry)
        except DAMAGE as error:
            raise RejectedFile(f"image {name} is damaged in the zip ({error})", code="image-damaged") from error
        return decode_image(name, encoded)
