"""What all arrays of an evaluation set must fulfil together, whatever file they are in."""

import numpy as np
import pytest

from service.domain.errors import RejectedFile
from service.inspection.arrays import ArrayHeader, element_count, label_name, sample_count


def headers(**shapes: tuple[int, ...]) -> dict[str, ArrayHeader]:
    return {name: ArrayHeader(shape, np.dtype(np.float32), 0) for name, shape in shapes.items()}


def test_the_first_axis_is_the_sample() -> None:
    assert sample_count(headers(image=(7, 3, 4, 4), ids=(7, 9), labels=(7,))) == 7


def test_elements_are_counted_without_overflow() -> None:
    assert element_count((2**40, 2**40, 2)) == 2**81


def test_labels_are_known_by_their_name_only() -> None:
    assert label_name(["x", "targets"]) == "targets"
    assert label_name(["x", "Labels", "y"]) is None


REFUSED = {
    "no arrays": (headers(), "no-arrays", "save the model's inputs"),
    "only labels": (headers(labels=(3,)), "no-inputs", "labels but no inputs; add an array"),
    "two labels": (headers(x=(3,), label=(3,), target=(3,)), "ambiguous-labels", "'label' and 'target'"),
    "different lengths": (headers(x=(3, 2), labels=(4,)), "different-lengths", "'x' 3, 'labels' 4"),
    "a single number": (headers(x=(3,), scale=()), "no-sample-axis", "'scale' is a single number"),
    "no samples": (headers(x=(0, 3)), "no-samples", "'x' holds 0 samples"),
    "an empty axis": (headers(x=(3, 0)), "empty-array", r"(3, 0) is empty"),
}


@pytest.mark.parametrize(("given", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_an_evaluation_set_is_refused(given: dict[str, ArrayHeader], code: str, words: str) -> None:
    with pytest.raises(RejectedFile) as caught:
        sample_count(given)
    assert caught.value.code == code
    assert words in caught.value.message
