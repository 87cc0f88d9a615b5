"""Which targets are class labels, and how they are counted."""

import numpy as np
import pytest

from workers.data.labels import MOST_COUNTED_CLASSES, as_targets, count_classes


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint32, np.int64])
def test_whole_numbers_are_class_labels(dtype: type) -> None:
    targets = as_targets(np.array([0, 2, 2], dtype))
    assert targets.dtype == np.int64
    assert count_classes(targets) == {"0": 1, "2": 2}


KEPT = {
    "floats": np.array([0.5, 1.5], np.float32),
    "bools": np.array([True, False]),
    "one row for each sample": np.array([[1, 0], [0, 1]], np.int64),
}


@pytest.mark.parametrize("stored", KEPT.values(), ids=KEPT)
def test_other_targets_stay_as_they_are_and_are_not_counted(stored: np.ndarray) -> None:
    assert as_targets(stored) is stored
    assert count_classes(stored) is None


def test_classes_are_counted_by_name_where_they_have_one() -> None:
    assert count_classes(np.array([0, 1, 1, 7, -1]), ("cat", "dog")) == {"-1": 1, "cat": 1, "dog": 2, "7": 1}


def test_too_many_classes_are_not_counted() -> None:
    assert count_classes(np.arange(MOST_COUNTED_CLASSES + 1)) is None
    assert count_classes(None) is None
