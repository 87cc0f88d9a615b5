"""The parts of the TensorRT backend that need no TensorRT: shapes, files, builds one ahead."""

import os
import threading
from pathlib import Path

import pytest

from workers.backends.tensorrt.ahead import one_ahead
from workers.backends.tensorrt.plans import PlanStore, plan_key
from workers.backends.tensorrt.profile import input_ranges
from workers.backends.tensorrt.seam import BuildRequest, EngineFailure, ImplicitInt8, InputRange
from workers.backends.tensorrt.timing_cache import TimingCacheFile, cache_folder, file_name


def seen(*shapes: tuple[int, ...]) -> list[dict[str, tuple[int, ...]]]:
    return [{"x": shape} for shape in shapes]


def test_the_batch_may_be_anything_up_to_the_largest_and_is_tuned_for_the_usual() -> None:
    found = input_ranges({"x": ("n", 3)}, seen((8, 3), (8, 3), (5, 3)))
    assert found == (InputRange("x", (1, 3), (8, 3), (8, 3)),)


def test_other_free_sizes_span_what_was_seen() -> None:
    (found,) = input_ranges({"x": (None, "length")}, seen((8, 12), (8, 20), (8, 20), (4, 7)))
    assert (found.least, found.usual, found.most) == ((1, 7), (8, 20), (8, 20))


def test_a_fixed_batch_stays_fixed() -> None:
    (found,) = input_ranges({"x": (4, "length")}, seen((4, 7), (4, 9)))
    assert (found.least, found.most) == ((4, 7), (4, 9))
    assert found.usual == (4, 9)  # of shapes as frequent, the largest


def test_an_input_without_free_sizes_needs_no_range() -> None:
    assert input_ranges({"x": (4, 3)}, seen((4, 3))) == ()


@pytest.mark.parametrize("shape", [(8, 4), (8, 3, 1)], ids=["size", "rank"])
def test_data_that_do_not_fit_are_refused_with_both_shapes(shape) -> None:
    with pytest.raises(ValueError, match="input 'x' takes n×3; the data have 8×"):
        input_ranges({"x": ("n", 3)}, seen(shape))


def test_the_timing_cache_is_one_file_for_each_gpu_and_version() -> None:
    assert file_name("NVIDIA A100-SXM4-40GB", "10.16.1.11") == "nvidia-a100-sxm4-40gb_10.16.1.11.timing"
    assert file_name("NVIDIA A100-SXM4-40GB", "11.4.0.106") != file_name("NVIDIA A100-SXM4-40GB", "10.16.1.11")
    assert "/" not in file_name("../GPU", "../1")


def test_the_cache_folder_is_the_operator_s_else_the_user_s() -> None:
    assert cache_folder({"QUANTSIEVE_TENSORRT_CACHE": "/c", "XDG_CACHE_HOME": "/x"}) == Path("/c")
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/quantsieve/tensorrt")
    assert cache_folder({}) == Path.home() / ".cache/quantsieve/tensorrt"


def test_the_timing_cache_file_is_replaced_as_a_whole(tmp_path) -> None:
    file = TimingCacheFile(tmp_path / "deep" / "gpu.timing")
    assert file.read() == b""
    with file.locked():
        file.write(b"first")
        file.write(b"second")
    assert file.read() == b"second"
    assert sorted(each.name for each in file.path.parent.iterdir()) == ["gpu.lock", "gpu.timing"]


REQUEST = BuildRequest(b"graph", (InputRange("x", (1, 3), (8, 3), (8, 3)),))
OTHERS = {
    "graph": BuildRequest(b"grapg", REQUEST.inputs),
    "shapes": BuildRequest(b"graph", (InputRange("x", (1, 3), (8, 3), (9, 3)),)),
    "implicit": BuildRequest(b"graph", REQUEST.inputs, ImplicitInt8(frozenset({"a"}), {"x": 1.0})),
    "range": BuildRequest(b"graph", REQUEST.inputs, ImplicitInt8(frozenset({"a"}), {"x": 2.0})),
}


def test_a_plan_s_key_tells_apart_all_that_it_depends_on() -> None:
    keys = [plan_key("GPU/10", REQUEST), plan_key("GPU/11", REQUEST)]
    keys += [plan_key("GPU/10", each) for each in OTHERS.values()]
    assert len(set(keys)) == len(keys)
    assert plan_key("GPU/10", BuildRequest(b"graph", REQUEST.inputs)) == keys[0]


def test_plans_are_kept_and_the_longest_unused_go_first(tmp_path) -> None:
    store = PlanStore(tmp_path / "plans", most_bytes=10)
    assert store.get("a") is None
    store.put("a", b"aaaa")
    store.put("b", b"bbbb")
    os.utime(tmp_path / "plans" / "b.plan", (1, 1))
    assert store.get("a") == b"aaaa"
    store.put("c", b"cccc")
    assert (store.get("a"), store.get("b"), store.get("c")) == (b"aaaa", None, b"cccc")


def test_the_next_is_built_while_one_is_measured_and_never_more() -> None:
    begun = {item: threading.Event() for item in range(4)}

    def build(item: int) -> int:
        begun[item].set()
        return item * 10

    measured = []
    for item, built in one_ahead(build, range(4)):
        assert built() == item * 10
        if item < 3:
            assert begun[item + 1].wait(10)
        assert not any(begun[later].is_set() for later in range(item + 2, 4))
        measured.append(item)
    assert measured == [0, 1, 2, 3]


def test_a_build_that_fails_is_raised_for_its_own_item_alone() -> None:
    def build(item: str) -> str:
        if item == "b":
            raise EngineFailure("no tactic")
        return item

    found = []
    for item, built in one_ahead(build, "abc"):
        try:
            found.append(built())
        except EngineFailure as error:
            found.append(f"{item}: {error}")
    assert found == ["a", "b: no tactic", "c"]
