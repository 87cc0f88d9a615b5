"""Which array of an evaluation set feeds which input of a model."""

from collections.abc import Mapping

import numpy as np
import pytest

from service.domain.errors import InvalidInput
from service.domain.layers import TensorSpec
from service.domain.settings import Preprocessing
from workers.data.array_set import ArraySet
from workers.data.binding import BoundEvaluationSet, match_arrays
from workers.data.stored import ArraySpec

SCALED = Preprocessing(scale=0.5)


def inputs(**shapes: tuple[int, ...]) -> list[TensorSpec]:
    return [TensorSpec(name=name, dtype="float32", shape=("n", *shape)) for name, shape in shapes.items()]


def specs(**shapes: tuple[int, ...]) -> dict[str, ArraySpec]:
    return {name: ArraySpec(shape, np.dtype(np.float32)) for name, shape in shapes.items()}


MATCHES = {
    "by name": (specs(a=(3,), b=(3,)), inputs(b=(3,), a=(3,)), {"a": "a", "b": "b"}),
    "more arrays than inputs": (specs(a=(3,), b=(3,), c=()), inputs(b=(3,)), {"b": "b"}),
    "the only array": (specs(pixels=(3,)), inputs(x=(3,)), {"x": "pixels"}),
    "the only one that is no id": (specs(pixels=(3,), index=()), inputs(x=(3,)), {"x": "pixels"}),
    "the only one, a single number": (specs(age=()), inputs(x=()), {"x": "age"}),
}


@pytest.mark.parametrize(("arrays", "wanted", "expected"), MATCHES.values(), ids=MATCHES)
def test_names_decide_and_else_there_must_be_only_one(
    arrays: Mapping[str, ArraySpec], wanted: list[TensorSpec], expected: dict[str, str]
) -> None:
    assert match_arrays(arrays, wanted) == expected


AMBIGUOUS = {
    "two arrays for one input": (specs(a=(3,), b=(3,)), inputs(x=(3,)), "missing: 'x'"),
    "one of two inputs is missing": (specs(a=(3,)), inputs(a=(3,), b=(3,)), "missing: 'b'"),
    "case counts": (specs(Image=(3,), other=(3,)), inputs(image=(3,)), "missing: 'image'"),
}


@pytest.mark.parametrize(("arrays", "wanted", "words"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_is_ambiguous_is_asked_for(arrays: Mapping[str, ArraySpec], wanted: list[TensorSpec], words: str) -> None:
    with pytest.raises(InvalidInput, match=f"name the arrays after the inputs.*{words}") as caught:
        match_arrays(arrays, wanted)
    assert (caught.value.code, caught.value.field) == ("input-names", "dataset")
    for name in arrays:
        assert repr(name) in caught.value.message


def test_long_lists_of_names_are_shortened() -> None:
    with pytest.raises(InvalidInput) as caught:
        match_arrays(specs(**{f"array{index}": (3,) for index in range(100)}), inputs(x=(3,)))
    assert "'array11', …" in caught.value.message
    assert "array12" not in caught.value.message


def test_batches_come_in_the_order_asked_for_with_their_targets() -> None:
    samples, targets = np.arange(10, dtype=np.float32).reshape(5, 2), np.array([5, 6, 7, 8, 9])
    bound = BoundEvaluationSet(ArraySet(5, {"x": samples}, targets), inputs(x=(2,)), Preprocessing())
    order = np.array([4, 0, 3])
    batches = list(bound.batches(order, batch_size=2))
    assert [len(each.indices) for each in batches] == [2, 1]
    np.testing.assert_array_equal(np.concatenate([each.inputs["x"] for each in batches]), samples[order])
    np.testing.assert_array_equal(np.concatenate([each.targets for each in batches]), targets[order])
    np.testing.assert_array_equal(np.concatenate([each.indices for each in batches]), order)


def test_without_targets_batches_have_none() -> None:
    bound = BoundEvaluationSet(ArraySet(2, {"x": np.zeros((2, 2), np.float32)}, None), inputs(x=(2,)), Preprocessing())
    assert next(bound.batches(np.arange(2), 2)).targets is None


def test_of_several_inputs_the_images_are_preprocessed() -> None:
    arrays = {"image": np.ones((2, 3, 4, 4), np.float32), "ids": np.ones((2, 5), np.float32)}
    bound = BoundEvaluationSet(ArraySet(2, arrays, None), inputs(image=(3, 4, 4), ids=(5,)), SCALED)
    batch = next(bound.batches(np.arange(2), 2)).inputs
    assert (batch["image"].max(), batch["ids"].max()) == (0.5, 1.0)


def test_where_no_input_is_an_image_all_are_preprocessed() -> None:
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 5), np.float32)}
    batch = next(BoundEvaluationSet(ArraySet(2, arrays, None), inputs(a=(3,), b=(5,)), SCALED).batches(np.arange(2), 2))
    assert {float(each.max()) for each in batch.inputs.values()} == {0.5}


def test_a_sample_that_holds_nan_is_named_by_its_place_in_the_set() -> None:
    samples = np.zeros((5, 2), np.float32)
    samples[3, 1] = np.nan
    bound = BoundEvaluationSet(ArraySet(5, {"x": samples}, None), inputs(x=(2,)), Preprocessing())
    with pytest.raises(InvalidInput, match="array 'x' holds NaN in sample 3"):
        list(bound.batches(np.array([4, 3]), 2))
