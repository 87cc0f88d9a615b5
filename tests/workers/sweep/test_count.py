"""Calibration by shards: the same ranges bit for bit, counted once for every method, and safe from lost workers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.domain.settings import CalibrationMethod
from service.domain.states import Phase, SweepState, UnitKind, UnitState
from service.store import units
from service.store.tables import UnitRow
from tests.workers.installation import Installation, npz_bytes
from workers.calibration.histograms import Histograms
from workers.reconciler import reconcile
from workers.sandbox.model import SandboxedModel
from workers.sweep import plan

SAMPLES = 1300
SHARDS = 3


def uneven(growth: float = 20) -> bytes:
    """Samples that grow on the way, so that later shards need more bins than the first batch fixed."""
    x = np.random.default_rng(0).normal(size=(SAMPLES, 4)) * np.geomspace(1, growth, SAMPLES)[:, None]
    return npz_bytes(x=x.astype(np.float32))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches in a shard, whose last is not full."""
    monkeypatch.setattr("workers.sweep.prepare.batch_size", lambda *_: 100)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Grows by one with each pass over calibration samples."""
    seen: list[str] = []
    count = SandboxedModel.count

    def counted(self: SandboxedModel, *arguments: Any, **options: Any) -> Histograms:
        seen.append("pass")
        return count(self, *arguments, **options)

    monkeypatch.setattr(SandboxedModel, "count", counted)
    return seen


def begin(installation: Installation, **calibration: Any) -> str:
    dataset = installation.dataset(uneven())
    return installation.sweep(calibration={"dataset": dataset, "samples": SAMPLES, **calibration})


def ranges(installation: Installation, **calibration: Any) -> dict[str, Any]:
    sweep_id = begin(installation, **calibration)
    installation.run_until(UnitKind.MEASURE)
    return dict(installation.row(sweep_id).amax)


def counted_units(installation: Installation, sweep_id: str, round_: int | None = None) -> list[UnitRow]:
    with installation.context.database.read() as session:
        return units.units_of(session, sweep_id, UnitKind.CALIBRATE, round_=round_)


@pytest.mark.parametrize("samples", [1, 100, 512, 513, 1100, 100_000])
@pytest.mark.parametrize("batch", [1, 64, 100, 512, 4096])
def test_calibration_shards_hold_every_sample_once_and_end_where_a_batch_ends(samples: int, batch: int) -> None:
    shards = plan.cut_calibration(samples, batch)
    assert [each for shard in shards for each in range(shard.start, shard.stop)] == list(range(samples))
    assert all(shard.start % batch == 0 for shard in shards)
    assert len(shards) == 1 or max(each.stop - each.start for each in shards) >= plan.CALIBRATION_SHARD


@pytest.mark.parametrize(
    ("method", "growth"),
    [("entropy", 20.0), ("trt_entropy2", 20.0), ("percentile", 1e5)],
    ids=["entropy", "trt_entropy2", "percentile, bins are merged"],
)
def test_several_shards_give_the_ranges_of_one_bit_for_bit(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, method: str, growth: float
) -> None:
    dataset, found = installation.dataset(uneven(growth)), []
    for size, units_ in (
        (plan.CALIBRATION_SHARD, [(0, 0), (0, 1), (0, 2), (plan.MERGE_ROUND, 0)]),
        (SAMPLES, [(0, 0)]),
    ):
        monkeypatch.setattr(plan, "CALIBRATION_SHARD", size)
        sweep_id = installation.sweep(
            calibration={"dataset": dataset, "samples": SAMPLES, "method": method}, budget=None, shard_size=48
        )
        installation.run_until()
        assert [(each.round, each.ordinal) for each in counted_units(installation, sweep_id)] == units_
        assert sum(each.result.get("samples", 0) for each in counted_units(installation, sweep_id)) == SAMPLES
        found.append(installation.row(sweep_id).amax)
    assert found[0] == found[1]
    assert set(found[0]["amax"]) == {"first:0", "second:0"}


def test_a_second_sweep_by_another_method_runs_no_calibration_pass(
    installation: Installation, passes: list[str]
) -> None:
    model, dataset = installation.model(), installation.dataset(uneven())
    found = {}
    for method in (CalibrationMethod.MAX, CalibrationMethod.ENTROPY, CalibrationMethod.TRT_ENTROPY):
        calibration = {"dataset": dataset, "samples": SAMPLES, "method": method}
        sweep_id = installation.sweep(model=model, calibration=calibration, budget=None, shard_size=48)
        installation.run_until()
        assert installation.state(sweep_id) is SweepState.SUCCEEDED, installation.row(sweep_id).problem
        found[method] = installation.row(sweep_id).amax["amax"]["first:0"]
        assert len(passes) == SHARDS, "those of the first sweep"
        shards = [each.result["samples"] for each in counted_units(installation, sweep_id, 0)]
        assert shards == ([600, 600, 100] if method is CalibrationMethod.MAX else [0, 0, 0])
    assert len(set(found.values())) == 3


@pytest.mark.parametrize(
    "change",
    [{"fuse_bn": False}, {"dataset": "other"}, {"samples": SAMPLES - 1}],
    ids=["batch norms", "samples", "number of samples"],
)
def test_what_changes_the_activations_is_counted_anew(
    installation: Installation, passes: list[str], change: dict[str, Any]
) -> None:
    model, dataset = installation.model(), installation.dataset(uneven())
    calibration = {"dataset": dataset, "samples": SAMPLES}
    installation.sweep(model=model, calibration=calibration, budget=None, shard_size=48)
    installation.run_until()
    before = len(passes)
    if change.get("dataset"):
        calibration["dataset"] = installation.dataset(npz_bytes(SAMPLES, seed=1))
    calibration["samples"] = change.get("samples", SAMPLES)
    installation.sweep(
        model=model, calibration=calibration, budget=None, shard_size=48, fuse_bn=change.get("fuse_bn", True)
    )
    installation.run_until()
    # of fewer samples only the last shard is another
    assert len(passes) - before == (1 if "samples" in change else SHARDS)


def test_only_the_last_shard_queues_the_merge_whatever_their_order(installation: Installation) -> None:
    sweep_id = begin(installation)
    shards = [installation.run_until(UnitKind.CALIBRATE) for _ in range(SHARDS)]
    for lease in reversed(shards):
        assert lease is not None
        assert len(counted_units(installation, sweep_id)) == SHARDS
        installation.run(lease)
        assert installation.row(sweep_id).phase == Phase.CALIBRATE
    assert [each.state for each in counted_units(installation, sweep_id, plan.MERGE_ROUND)] == [UnitState.QUEUED]


def test_a_shard_whose_worker_was_lost_is_counted_once(installation: Installation) -> None:
    """By the worker that took it over; what the lost one still does is refused."""
    undisturbed = ranges(installation)
    sweep_id = begin(installation)
    lost = _claim_of(installation, sweep_id)
    installation.let_expire(lost)
    reconcile(installation.context)
    again = _claim_of(installation, sweep_id, unit_id=lost.unit_id)
    installation.run(lost)
    assert installation.unit(again).state == UnitState.LEASED
    installation.run(again)
    assert installation.unit(again).state == UnitState.DONE
    while installation.row(sweep_id).phase == Phase.CALIBRATE:
        installation.run(_claim_of(installation, sweep_id))
    assert dict(installation.row(sweep_id).amax) == undisturbed


def _claim_of(installation: Installation, sweep_id: str, unit_id: str | None = None) -> units.Lease:
    """The next calibrate unit of this sweep (or this one); what comes before it is done."""
    for _ in range(50):
        lease = installation.claim()
        assert lease is not None
        own = lease.sweep_id == sweep_id and lease.kind is UnitKind.CALIBRATE
        if own and unit_id in (None, lease.unit_id):
            return lease
        installation.run(lease)
    raise AssertionError("it never came")
