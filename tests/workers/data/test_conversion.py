"""Number types: which turn into which without a guess, and the values that are refused."""

import numpy as np
import pytest

from service.domain.errors import InvalidInput
from service.domain.layers import TensorSpec
from service.domain.settings import Preprocessing
from workers.data.conversion import check_dtype, check_finite, converted, model_dtype

AS_THEY_ARE = Preprocessing()


def spec(dtype: str) -> TensorSpec:
    return TensorSpec(name="input", dtype=dtype, shape=("n", 3))


FREE = [
    *(("float64", "float32"), ("float16", "float32"), ("float32", "float16"), ("float32", "float32")),
    *(("uint8", "int64"), ("int64", "int32"), ("uint8", "uint8")),
    *(("bool", "float32"), ("bool", "int64"), ("bool", "bool")),
]


@pytest.mark.parametrize(("stored", "wanted"), FREE)
def test_these_need_no_word(stored: str, wanted: str) -> None:
    check_dtype("x", np.dtype(stored), spec(wanted), AS_THEY_ARE)


@pytest.mark.parametrize("stored", ["uint8", "int64"])
def test_whole_numbers_for_a_float_input_are_asked_about(stored: str) -> None:
    with pytest.raises(InvalidInput, match=r"1/255 \(0\.00392156862745098\), or dtype=float32 to take") as caught:
        check_dtype("x", np.dtype(stored), spec("float32"), AS_THEY_ARE)
    assert (caught.value.code, caught.value.field) == ("ambiguous-dtype", "preprocessing")


@pytest.mark.parametrize("given", [Preprocessing(scale=0.5), Preprocessing(mean=(1,)), Preprocessing(dtype="float32")])
def test_a_preprocessing_answers_the_question(given: Preprocessing) -> None:
    check_dtype("x", np.dtype("uint8"), spec("float32"), given)


MISMATCHES = [("float32", "int64"), ("float64", "uint8"), ("float32", "bool"), ("int64", "bool")]


@pytest.mark.parametrize(("stored", "wanted"), MISMATCHES)
def test_these_do_not_turn_into_each_other(stored: str, wanted: str) -> None:
    with pytest.raises(InvalidInput, match=f"array 'x' gives {stored} values.*store the array as {wanted}") as caught:
        check_dtype("x", np.dtype(stored), spec(wanted), AS_THEY_ARE)
    assert caught.value.code == "dtype-mismatch"


@pytest.mark.parametrize("given", [Preprocessing(dtype="uint8"), Preprocessing(dtype="int64")])
def test_fractions_are_not_cut_off(given: Preprocessing) -> None:
    with pytest.raises(InvalidInput, match="would cut off the fractions of array 'x'") as caught:
        check_dtype("x", np.dtype("float32"), spec(str(given.dtype)), given)
    assert caught.value.field == "preprocessing.dtype"


def test_a_whole_dtype_cannot_hold_what_scale_gives() -> None:
    with pytest.raises(InvalidInput, match="cannot hold what scale, mean and std give; leave it out"):
        check_dtype("x", np.dtype("uint8"), spec("float32"), Preprocessing(dtype="uint8", scale=0.5))


@pytest.mark.parametrize("dtype", ["object", "str", "complex64", "bfloat16"])
def test_inputs_that_no_set_can_hold_are_named(dtype: str) -> None:
    with pytest.raises(InvalidInput, match=f"'input' takes {dtype}, which an evaluation set cannot hold") as caught:
        model_dtype(spec(dtype))
    assert caught.value.field == "model"


def test_whole_numbers_are_converted_only_where_they_fit() -> None:
    np.testing.assert_array_equal(converted(np.array([0, 255]), np.dtype(np.uint8), "x"), np.array([0, 255], np.uint8))
    with pytest.raises(InvalidInput, match="array 'x' holds values from -1 to 256, which uint8 cannot hold") as caught:
        converted(np.array([-1, 256]), np.dtype(np.uint8), "x")
    assert caught.value.code == "value-range"


def test_the_same_dtype_is_no_copy() -> None:
    values = np.zeros(3, np.float32)
    assert converted(values, np.dtype(np.float32), "x") is values


BAD = {
    "NaN": (np.nan, np.float32, "NaN"),
    "infinity": (np.inf, np.float32, r"infinity \(as float32\)"),
    "what float16 cannot hold": (1e6, np.float16, r"infinity \(as float16\)"),
}


@pytest.mark.parametrize(("value", "dtype", "words"), BAD.values(), ids=BAD)
def test_what_is_not_finite_is_refused_by_its_sample(value: float, dtype: type, words: str) -> None:
    values = np.zeros((4, 2, 2))
    values[2, 1, 0] = value
    with pytest.raises(InvalidInput, match=f"array 'x' holds {words} in sample 70") as caught:
        check_finite(converted(values, np.dtype(dtype), "x"), "x", np.array([10, 20, 70, 80]))
    assert caught.value.code == "not-finite"


def test_whole_numbers_and_finite_ones_pass() -> None:
    check_finite(np.zeros((2, 3), np.float32), "x", np.arange(2))
    check_finite(np.zeros((2, 3), np.int64), "x", np.arange(2))
