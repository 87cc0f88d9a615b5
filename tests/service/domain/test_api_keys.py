import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.api_keys import ALPHABET, ApiKey


def test_a_key_is_read_back_and_is_never_shown():
    key = ApiKey.generate()
    assert ApiKey.parse(key.text) == key
    assert key.text.startswith(f"qs_{key.id.removeprefix('key_')}_")
    assert key.text[16:] not in repr(key)


@settings(max_examples=50)
@given(place=st.integers(3, 62), typed=st.sampled_from(ALPHABET))
def test_a_typing_error_is_seen_without_a_database(place: int, typed: str):
    text = ApiKey.generate().text
    wrong = text[:place] + typed + text[place + 1 :]
    assert (ApiKey.parse(wrong) is None) == (wrong != text)


@pytest.mark.parametrize("change", [str.upper, lambda text: text + "0", lambda text: text[:-1], lambda _: ""])
def test_another_form_is_no_key(change):
    assert ApiKey.parse(change(ApiKey.generate().text)) is None
