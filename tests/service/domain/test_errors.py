import inspect

import pytest

from service.domain import errors
from service.domain.errors import InvalidInput, LayerFailure, QuantsieveError, RejectedFile

KINDS = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, QuantsieveError)]


def test_each_error_has_a_code_of_its_own() -> None:
    codes = [each.code for each in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code and "_" not in code for code in codes)


def test_the_tree_at_the_top_of_the_module_names_every_error() -> None:
    assert errors.__doc__ is not None
    assert [each.__name__ for each in KINDS if each.__name__ not in errors.__doc__] == []


def test_a_code_may_be_more_precise_without_changing_its_class() -> None:
    assert InvalidInput("x", code="too-large").code == "too-large"
    assert InvalidInput.code == "invalid-input"


def test_an_error_of_input_names_its_field() -> None:
    assert InvalidInput("budget: …", field="budget").field == "budget"
    assert isinstance(RejectedFile("…"), InvalidInput)


def test_a_layers_failure_is_told_by_its_reason() -> None:
    found = LayerFailure("conv1", "no kernel")
    assert (str(found), found.message, found.layer_id) == ("no kernel", "no kernel", "conv1")


@pytest.mark.parametrize("kind", [each for each in KINDS if each is not LayerFailure], ids=lambda each: each.__name__)
def test_the_message_is_what_a_person_reads(kind: type[QuantsieveError]) -> None:
    assert str(kind("what is wrong")) == kind("what is wrong").message == "what is wrong"
