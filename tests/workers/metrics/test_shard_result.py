"""What a worker stores of a shard: all of it comes back, and equal results are equal bytes."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.domain.errors import QuantsieveError
from workers.metrics.shard_result import ShardResult, assemble, merge

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
FLOATS = st.floats(width=64)


@st.composite
def shard_results(draw: st.DrawFn) -> ShardResult:
    variants = tuple(draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)))
    samples = draw(st.integers(1, 5))
    rows = arrays.arrays(np.float64, (len(variants), samples), elements=FLOATS)
    measures = draw(st.dictionaries(st.sampled_from(["mse", "kl", "correct"]), rows, min_size=1))
    dtypes = st.sampled_from([np.float32, np.int64, np.bool_, np.uint8])
    state = dtypes.flatmap(lambda dtype: arrays.arrays(dtype, (len(variants), 3, 2)))
    states = draw(st.dictionaries(st.sampled_from(["tp", "preds"]), state))
    failures = draw(st.dictionaries(st.sampled_from(variants), NAMES))
    return ShardResult(variants, measures, states, failures, tuple(str(each) for each in range(len(variants))))


def assert_same(a: ShardResult, b: ShardResult) -> None:
    assert (a.variants, a.failures, a.identities) == (b.variants, b.failures, b.identities)
    for mine, theirs in ((a.measures, b.measures), (a.states, b.states)):
        assert set(mine) == set(theirs)
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(mine[name], theirs[name], strict=True)


def result(variants: tuple[str, ...], *rows: float, **parts: Any) -> ShardResult:
    return ShardResult(variants, {"mse": np.array(rows, dtype=np.float64).reshape(len(variants), -1)}, **parts)


@settings(deadline=None, max_examples=50)
@given(shard_results())
def test_what_is_stored_comes_back_bit_for_bit(stored: ShardResult) -> None:
    assert_same(ShardResult.from_bytes(stored.to_bytes()), stored)


@settings(deadline=None, max_examples=50)
@given(shard_results())
def test_equal_results_are_equal_bytes(stored: ShardResult) -> None:
    again = ShardResult(
        stored.variants,
        {name: np.asfortranarray(stored.measures[name]) for name in reversed(stored.measures)},
        {name: stored.states[name].copy() for name in reversed(stored.states)},
        dict(reversed(stored.failures.items())),
        stored.identities,
    )
    assert again.to_bytes() == stored.to_bytes()
    assert ShardResult.from_bytes(stored.to_bytes()).to_bytes() == stored.to_bytes()


def test_the_bytes_do_not_depend_on_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    before = result(("fp32",), 1.0).to_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert result(("fp32",), 1.0).to_bytes() == before


def rewritten(whole: bytes, **members: bytes | None) -> bytes:
    """The zip with members replaced (None: left out); ``header`` stands for header.json."""
    replaced = {
        name.replace("header", "header.json").replace("mse", "measures/mse.npy"): members[name] for name in members
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            kept = replaced.get(name, old.read(name))
            if kept is not None:
                new.writestr(name, kept)
    return buffer.getvalue()


def pickled_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


WHOLE = result(("fp32", "layer:a"), *range(2000)).to_bytes()
DAMAGED = {
    "empty": b"",
    "no zip": b"hello",
    "cut off": WHOLE[: len(WHOLE) // 2],
    "flipped bytes": WHOLE[:200] + bytes(255 - each for each in WHOLE[200:260]) + WHOLE[260:],
    "no header": rewritten(WHOLE, header=None),
    "header is no JSON": rewritten(WHOLE, header=b"{"),
    "header is a list": rewritten(WHOLE, header=b"[]"),
    "header lacks a field": rewritten(WHOLE, header=b'{"version": 1}'),
    "an array cut off": rewritten(WHOLE, mse=b"\x93NUMPY\x01\x00"),
    "an array that is none": rewritten(WHOLE, mse=b"hello"),
    "a pickle": rewritten(WHOLE, mse=pickled_array()),
    "another version": rewritten(WHOLE, header=b'{"version": 99}'),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_result_is_one_named_error(content: bytes) -> None:
    with pytest.raises(QuantsieveError, match=r"a shard's stored result cannot be read: .+") as caught:
        ShardResult.from_bytes(content)
    assert caught.value.code == "damaged-result"


def test_the_error_names_a_version_that_is_not_known() -> None:
    with pytest.raises(QuantsieveError, match="it has version 99, and this program reads 1"):
        ShardResult.from_bytes(DAMAGED["another version"])


def test_what_was_measured_on_a_shard_at_different_times_is_merged_by_name_the_first_counts() -> None:
    table = result(("fp32", "layer:a"), 0, 0, 1, 2, states={"tp": np.array([[1], [2]])})
    later = result(("fp32", "layer:b"), 9, 9, 3, 4, states={"tp": np.array([[9], [3]])})
    found = merge([table, later])
    assert found.variants == ("fp32", "layer:a", "layer:b")
    assert found.measures["mse"].tolist() == [[0, 0], [1, 2], [3, 4]]
    assert found.states["tp"].tolist() == [[1], [2], [3]]


def test_a_merged_variant_keeps_its_failure() -> None:
    failed = result(("fp32", "b"), 0, np.nan, failures={"b": "no kernel"})
    assert merge([result(("fp32", "a"), 0, 1), failed]).failures == {"b": "no kernel"}


def test_rows_are_assembled_by_identity_whatever_they_were_called() -> None:
    old = result(("layer:a", "fp32"), 7, 0, identities=("A", "0"), states={"tp": np.array([[1], [2]])})
    new = result(("x",), 9, identities=("B",), states={"tp": np.array([[3]])})
    found = assemble(("fp32", "one", "two"), ("0", "B", "A"), [new, old])
    assert found.variants == ("fp32", "one", "two")
    assert found.measures["mse"].tolist() == [[0], [9], [7]]
    assert found.states["tp"].tolist() == [[2], [3], [1]]
    assert found.identities == ("0", "B", "A")


def test_the_first_source_that_holds_a_variant_gives_its_row() -> None:
    first, second = (result(("a",), value, identities=("A",)) for value in (1, 2))
    assert assemble(("a",), ("A",), [first, second]).measures["mse"].tolist() == [[1]]


def test_a_failure_that_was_found_again_stays_a_failure_under_its_new_name() -> None:
    whole = result(("fp32", "a"), 0, 1, identities=("0", "A"), states={"tp": np.array([[4], [5]])})
    failed = result(("b",), np.nan, identities=("B",), failures={"b": "its output holds NaN"})
    found = assemble(("one", "fp32"), ("B", "0"), [failed, whole])
    assert found.failures == {"one": "its output holds NaN"}
    assert np.isnan(found.measures["mse"][0]).all()
    assert found.states["tp"].tolist() == [[0], [4]]


def test_a_variant_that_no_source_holds_is_an_error() -> None:
    with pytest.raises(KeyError):
        assemble(("a",), ("A",), [result(("a",), 1, identities=("B",))])
