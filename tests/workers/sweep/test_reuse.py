from typing import Any

from service.domain.layers import FP32, FP32_REPEATED, Layer, Operation, Variant
from workers.sweep.reuse import identities

LAYERS = [Layer(id=each, name=each, op=Operation.CONV, activations=(f"{each}:0",)) for each in ("a", "b")]
AMAX = {"a:0": 1.0, "b:0": 2.0}


def identity(name: str, *int8: str, **amax: Any) -> str:
    (found,) = identities([Variant(name=name, int8=frozenset(int8))], LAYERS, amax or AMAX)
    return found


def test_a_variant_is_its_layers_with_their_ranges_whatever_it_is_called() -> None:
    assert identity("layer:a", "a") == identity("mixed:b", "a")
    assert identity("all_int8", "a", "b") == identity("mixed:", "b", "a")
    assert identity("layer:a", "a") != identity("layer:a", "b")
    assert identity("layer:a", "a") != identity("layer:a", "a", **{"a:0": 1.5, "b:0": 2.0})
    assert identity("layer:a", "a") == identity("layer:a", "a", **{"a:0": 1.0, "b:0": 2.5})


def test_the_repeated_control_is_never_taken_for_the_first() -> None:
    assert identity(FP32) == identity("mixed:a\nb")
    assert identity(FP32) != identity(FP32_REPEATED)
