import pytest

from service.domain.errors import SweepFailure
from service.domain.layers import Layer, Operation
from workers.sweep.filters import excluded_layers


def layer(node: str, name: str) -> Layer:
    return Layer(id=node, name=name, op=Operation.CONV, activations=(f"{node}:0",))


LAYERS = [layer("n1", "conv1"), layer("n2", "layer1.0.conv1"), layer("n3", "layer1.0.conv2")]


def test_no_patterns_exclude_nothing() -> None:
    assert excluded_layers(LAYERS, (), ()) == {}


def test_a_name_matches_whole_not_as_a_substring() -> None:
    assert set(excluded_layers(LAYERS, (), ("conv1",))) == {"n1"}


def test_a_glob_matches_names_and_an_id_matches_too() -> None:
    assert set(excluded_layers(LAYERS, (), ("layer1.*",))) == {"n2", "n3"}
    assert set(excluded_layers(LAYERS, ("n2",), ())) == {"n1", "n3"}


def test_exclude_wins_over_include_and_the_reason_names_the_pattern() -> None:
    reasons = excluded_layers(LAYERS, ("layer1.*",), ("*.conv2",))
    assert reasons == {"n1": "not matched by include", "n3": "excluded by '*.conv2'"}


@pytest.mark.parametrize("field", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_an_error_that_names_it(field: str) -> None:
    patterns = {"include": (), "exclude": ()} | {field: ("layer9.*",)}
    with pytest.raises(SweepFailure, match=rf"{field}: the pattern 'layer9\.\*' matches no layer"):
        excluded_layers(LAYERS, patterns["include"], patterns["exclude"])


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(SweepFailure, match="leave no layer"):
        excluded_layers(LAYERS, (), ("*",))
