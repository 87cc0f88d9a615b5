import pytest

from workers.engine import batch_size as module
from workers.engine.batch_size import batch_size, free_bytes


@pytest.mark.parametrize(
    ("live_bytes", "expected"), [(1, 64), (2**20, 64), (100 * 2**20, 3), (10 * 2**30, 1), (None, 64)]
)
def test_three_times_the_live_tensors_fit_into_a_quarter_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, live_bytes: int | None, expected: int
) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda device: 4 * 2**30)
    assert batch_size("cpu", live_bytes) == expected


def test_a_gpu_takes_larger_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda device: 64 * 2**30)
    assert batch_size("cuda:1", 2**20) == 256


def test_this_machine_has_memory() -> None:
    assert free_bytes("cpu") > 2**20
