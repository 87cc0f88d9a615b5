"""Racing sweeps from upload to report, beside exact ones on the same samples."""

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from service.domain.states import SweepState, UnitKind
from service.store.tables import UnitRow
from tests.workers.installation import Installation, npz_bytes
from workers.metrics.shard_result import ShardResult

SAMPLES = 800


def swept(installation: Installation, **settings: Any) -> dict[str, Any]:
    # ranges of all samples: one that lies far outside would decide the mean alone
    calibrated = {"samples": SAMPLES}
    settings = {"metric": {"name": "mse"}, "shard_size": None, "dataset": None, "calibration": calibrated, **settings}
    settings["dataset"] = settings["dataset"] or installation.dataset(npz_bytes(SAMPLES))
    sweep_id = installation.sweep(**settings)
    installation.run_until()
    row = installation.row(sweep_id)
    assert row.state == SweepState.SUCCEEDED, row.problem
    return installation.report(sweep_id)


def results(installation: Installation) -> list[tuple[int, ShardResult]]:
    """(shard, what was measured), of every unit."""
    with installation.context.database.read() as session:
        kinds = (UnitKind.MEASURE, UnitKind.VERIFY)
        rows = session.scalars(select(UnitRow).where(UnitRow.kind.in_(kinds))).all()
        return [
            (row.ordinal, ShardResult.from_bytes(installation.context.blobs.read(row.result_sha256)))
            for row in rows
            if row.result_sha256
        ]


CASES = {
    "the most sensitive quarter": {"budget": None},
    "a budget": {"budget": {"max_drop": 1e-4}},
    "a budget that nothing meets": {"budget": {"max_drop": 1e-12}},
    "one off": {"mode": "one_off", "budget": None},
    "one off with a budget": {"mode": "one_off", "budget": {"max_drop": 1e-4}},
    "threshold": {"budget": None, "selection": {"algorithm": "threshold", "threshold": 1e-4}},
    "agreement": {"metric": {"name": "agreement"}, "budget": {"max_drop": 0.02}},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_a_race_decides_as_the_exact_sweep(installation: Installation, settings: dict[str, Any]) -> None:
    raced = swept(installation, method="racing", **settings)
    exact = swept(installation, **settings)
    most = None if settings.get("budget") or "selection" in settings else 1
    expected = exact["decision"]["fallback"][:most]
    assert set(raced["decision"]["fallback"]) == set(expected)
    assert raced["decision"]["error_rate"] == 0.05
    assert exact["decision"]["error_rate"] is None


def test_layers_stop_early_and_say_why_after_how_many_samples(installation: Installation) -> None:
    report = swept(installation, method="racing", budget=None)
    samples = {each["layer"]["name"]: each["score"]["drop"]["samples"] for each in report["layers"]}
    assert max(samples.values()) < SAMPLES
    sides = sorted(each["stopped"].partition(" after ")[0] for each in report["layers"])
    assert sides == ["surely among the 1 most sensitive", "surely not among the 1 most sensitive"]
    for each in report["layers"]:
        count = samples[each["layer"]["name"]]
        assert each["stopped"].endswith(f"after {count} of {SAMPLES} samples")
        assert each["score"]["drop"]["samples"] == count


def test_layers_that_the_exact_sweep_would_not_tell_from_noise_are_surely_not_in_the_list(
    installation: Installation,
) -> None:
    # the drop of no layer is told from zero on these few samples
    dataset = installation.dataset(npz_bytes(200))
    report = swept(installation, method="racing", metric={"name": "agreement"}, budget=None, dataset=dataset)
    assert report["decision"]["fallback"] == []
    stopped = [each["stopped"].partition(" after ")[0] for each in report["layers"]]
    assert stopped == ["surely not among the 1 most sensitive"] * 2


def test_no_variant_is_measured_twice_on_a_shard(installation: Installation) -> None:
    swept(installation, method="racing", budget={"max_drop": 1e-4})
    again: dict[int, list[str]] = {}
    for shard, result in results(installation):
        again.setdefault(shard, []).extend(each for each in result.variants if each != "fp32")
    assert all(len(set(names)) == len(names) for names in again.values())


def test_two_seeds_take_other_samples_first_and_decide_alike(installation: Installation) -> None:
    first, second = (swept(installation, method="racing", budget=None, seed=seed) for seed in (0, 1))
    assert first["decision"]["fallback"] == second["decision"]["fallback"]
    values = [each["layers"][0]["score"]["metric"]["value"] for each in (first, second)]
    assert values[0] != values[1]


def test_a_metric_without_a_value_for_each_sample_is_refused(installation: Installation) -> None:
    metric = {"name": "MulticlassF1Score", "args": {"num_classes": 3}}
    sweep_id = installation.sweep(method="racing", metric=metric)
    installation.run_until()
    row = installation.row(sweep_id)
    assert (row.state, row.problem_code) == (SweepState.FAILED, "invalid-input")
    assert row.problem is not None
    assert "MulticlassF1Score has no value for each sample" in row.problem


def test_fewer_samples_than_a_first_look_needs_are_all_measured(installation: Installation) -> None:
    report = swept(installation, method="racing", budget=None, dataset=installation.dataset(npz_bytes(20)))
    assert {each["score"]["drop"]["samples"] for each in report["layers"]} == {20}
    assert np.isfinite([each["score"]["drop"]["value"] for each in report["layers"]]).all()
