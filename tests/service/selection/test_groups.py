import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.costs import Group
from service.domain.errors import InvalidInput
from service.selection.groups import MergedGroup, Pins, merged_groups, user_groups

NAMES = {"n1": "stem", "n2": "block.q", "n3": "block.k", "n4": "block.v", "n5": "head"}


def group(name: str, *layers: str) -> Group:
    return Group(name=name, layers=layers, reason="shared_input")


def test_layers_without_a_group_decide_by_themselves_in_the_order_of_the_model() -> None:
    assert merged_groups(NAMES, ()) == tuple(MergedGroup(layers=(each,)) for each in NAMES)


def test_overlapping_groups_are_one_and_tell_both_names() -> None:
    found = merged_groups(NAMES, [group("qk", "n2", "n3"), group("kv", "n4", "n3")])
    assert [each.layers for each in found] == [("n1",), ("n2", "n3", "n4"), ("n5",)]
    assert found[1].because == ("qk", "kv")


def test_layers_that_are_not_decided_about_drop_out_of_their_groups() -> None:
    found = merged_groups({"n2": "block.q", "n5": "head"}, [group("qk", "n2", "n3")])
    assert found == (MergedGroup(layers=("n2",)), MergedGroup(layers=("n5",)))


def test_users_make_groups_by_patterns_over_names_and_ids() -> None:
    (found,) = user_groups([("block.*", "n5")], NAMES)
    assert (found.layers, found.reason) == (("n2", "n3", "n4", "n5"), "user")


def test_a_pin_of_one_layer_decides_for_its_group() -> None:
    pins = Pins(always_int8=("stem",), never_int8=("block.k",))
    found = merged_groups(NAMES, [group("qkv", "n2", "n3", "n4")], pins)
    assert [each.floating for each in found] == [False, True, None]


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        (Pins(always_int8=("head",), never_int8=("h*",)), ("'head' puts head in int8", "'h*' keeps head out")),
        (
            Pins(always_int8=("block.q",), never_int8=("n4",)),
            ("'block.q' puts block.q in int8", "'n4' keeps block.v out", "share a precision (qk; kv)"),
        ),
    ],
    ids=["one layer", "one group"],
)
def test_pins_that_contradict_are_refused_and_both_are_named(pins: Pins, words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        merged_groups(NAMES, [group("qk", "n2", "n3"), group("kv", "n3", "n4")], pins)
    assert caught.value.code == "pins-contradict"
    for each in words:
        assert each in str(caught.value)


@pytest.mark.parametrize("field", ["always_int8", "never_int8"])
def test_a_pin_that_matches_nothing_is_named_with_what_there_is(field: str) -> None:
    with pytest.raises(InvalidInput, match=f"selection.{field}: the pattern 'nose' matches no layer.*stem, block.q"):
        merged_groups(NAMES, (), Pins(**{field: ("nose",)}))
    with pytest.raises(InvalidInput, match=r"selection.groups: the pattern 'nose'"):
        user_groups([("stem", "nose")], NAMES)


@given(st.lists(st.lists(st.sampled_from(sorted(NAMES)), min_size=1, max_size=3), max_size=4))
def test_every_layer_is_in_one_group_and_no_group_that_was_given_is_split(given_groups: list[list[str]]) -> None:
    found = merged_groups(NAMES, [group(str(place), *each) for place, each in enumerate(given_groups)])
    assert sorted(layer for each in found for layer in each.layers) == sorted(NAMES)
    for each in given_groups:
        assert sum(bool(set(each) & set(merged.layers)) for merged in found) == 1
