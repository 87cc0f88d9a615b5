"""The images of a zip by class: labels by folder, an order that mixes the classes, and what is refused."""

import zipfile

import pytest

from service.domain.errors import RejectedFile
from service.inspection.image_listing import ImageListing, list_images


def entries(*names: str, size: int = 10) -> list[zipfile.ZipInfo]:
    found = [zipfile.ZipInfo(name) for name in names]
    for each in found:
        each.file_size = size
    return found


def order(listing: ImageListing) -> list[str]:
    return [each.filename for each in listing.images]


def test_folders_are_the_classes_in_alphabetical_order() -> None:
    listing = list_images(entries("dog/1.png", "cat/1.JPG", "dog/2.bmp"))
    assert listing.class_names == ("cat", "dog")
    assert listing.class_counts == {"cat": 1, "dog": 2}
    assert dict(zip(order(listing), listing.labels, strict=True)) == {"cat/1.JPG": 0, "dog/1.png": 1, "dog/2.bmp": 1}


def test_the_first_samples_are_of_all_classes_whatever_the_order_in_the_zip() -> None:
    names = [f"{folder}/{number}.png" for folder in ("a", "b", "c") for number in range(3)]
    listing = list_images(entries(*names))
    assert listing.labels == (0, 1, 2, 0, 1, 2, 0, 1, 2)
    assert order(listing) == order(list_images(entries(*reversed(names))))


def test_folders_that_are_numbers_are_the_labels() -> None:
    listing = list_images(entries("10/a.png", "2/a.png", "0/a.png"))
    assert (listing.class_names, listing.labels) == (None, (0, 2, 10))
    assert list(listing.class_counts) == ["0", "2", "10"]


@pytest.mark.parametrize("folders", [("01", "2"), ("1", "two"), ("-1", "2"), ("1.0", "2")])
def test_folders_that_are_not_all_plain_numbers_are_names(folders: tuple[str, str]) -> None:
    assert list_images(entries(*(f"{each}/a.png" for each in folders))).class_names == folders


def test_one_folder_around_all_classes_is_passed_over() -> None:
    assert list_images(entries("val/cat/1.png", "val/dog/1.png")).class_names == ("cat", "dog")


def test_the_litter_of_operating_systems_is_passed_over() -> None:
    litter = ["__MACOSX/cat/._1.png", "cat/.DS_Store", "cat/Thumbs.db", "cat/._1.png", "desktop.ini"]
    assert order(list_images(entries("cat/1.png", *litter))) == ["cat/1.png"]


REFUSED = {
    "nothing": ([], "no-images", "put each image in a folder"),
    "only litter": (["cat/.DS_Store"], "no-images", "holds no images"),
    "no folder": (["1.png"], "no-class-folder", "'1.png' in the zip is in no class folder"),
    "too deep": (["a/b/1.png", "c/1.png"], "nested-folders", "'a/b/1.png' in the zip lies too deep"),
    "another file": (["cat/1.png", "cat/notes.txt"], "not-an-image", "'cat/notes.txt' in the zip is not an image"),
}


@pytest.mark.parametrize(("names", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_folders_that_do_not_tell_the_class_are_refused(names: list[str], code: str, words: str) -> None:
    with pytest.raises(RejectedFile) as caught:
        list_images(entries(*names))
    assert caught.value.code == code
    assert words in caught.value.message


def test_an_empty_file_is_named() -> None:
    with pytest.raises(RejectedFile, match=r"'cat/1\.png' in the zip is empty"):
        list_images(entries("cat/1.png", size=0))
