import pytest
from pydantic import ValidationError

from service.domain.layers import CONTROLS, Layer, Operation, Variant, controls


def test_the_controls_are_fp32_twice_and_everything_in_int8() -> None:
    found = controls(["a", "b"])
    assert tuple(each.name for each in found) == CONTROLS == ("fp32", "fp32_repeated", "all_int8")
    assert [sorted(each.int8) for each in found] == [[], [], ["a", "b"]]


def test_stored_values_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Variant(name="x", int8=frozenset()).name = "y"  # type: ignore[misc]


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="color"):
        Layer.model_validate({"id": "a", "name": "a", "op": "Conv", "activations": [], "color": "red"})


def test_a_layer_comes_back_from_json_as_it_was() -> None:
    layer = Layer(id="n", name="layer1.0", op=Operation.CONV, activations=("n:0",), weight_shape=(8, 3, 3, 3), macs=9)
    assert Layer.model_validate_json(layer.model_dump_json()) == layer
