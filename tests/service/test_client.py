"""How the client waits; what it asks for is tested with the API."""

import time

import pytest

from service.client import _Pauses


def test_it_looks_soon_at_first_and_every_half_second_later(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    pauses = _Pauses(None)
    for _ in range(12):
        pauses.wait("it has not ended")
    assert slept == sorted(slept)
    assert (slept[0], slept[-1]) == (0.05, 0.5)


def test_a_timeout_says_what_has_not_ended() -> None:
    with pytest.raises(TimeoutError, match="sweep swp_1 has not ended"):
        _Pauses(-1.0).wait("sweep swp_1 has not ended")
