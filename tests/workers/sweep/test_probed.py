import csv
import io
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from service.domain.results import Interval
from service.domain.states import Phase, SweepState, UnitKind, UnitState
from service.selection.ranking import rank_by
from service.store import lost_units, progress, sweeps, units
from tests.workers.installation import Installation
from workers.engine.probe_sums import ProbeSums
from workers.sweep.probed import Known, at_the_end

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
SAMPLES = 48
SHARD = 24
LAYERS = 19


class Digits:
    """The digits network and its samples, uploaded once for several sweeps."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.model = installation.model((DIGITS / "digits.pt2").read_bytes(), "pt2")
        self.dataset = installation.dataset((DIGITS / "eval.npz").read_bytes())
        self.calibration = installation.dataset((DIGITS / "calib.npz").read_bytes())

    def submit(self, **settings: Any) -> str:
        asked = {
            "model": self.model,
            "dataset": self.dataset,
            "calibration": {"dataset": self.calibration, "samples": 16},
            "backend": "torch",
            "samples": SAMPLES,
            "shard_size": SHARD,
            "metric": {"name": "kl"},
            "budget": None,
            **settings,
        }
        return self.installation.sweep(**asked)

    def report(self, **settings: Any) -> dict[str, Any]:
        sweep_id = self.submit(**settings)
        self.installation.run_until()
        row = self.installation.row(sweep_id)
        assert row.state == SweepState.SUCCEEDED, row.problem
        return self.installation.report(sweep_id)


@pytest.fixture(scope="module")
def digits(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Digits]:
    """One installation for all tests here: what a sweep has measured is found by the next one that asks for it."""
    folder = tmp_path_factory.mktemp("probed") / "data"
    shutil.copytree(migrated, folder)
    made = Installation.at(folder, lease_seconds=60, heartbeat_seconds=0.5, max_attempts=3)
    yield Digits(made)
    made.context.database.close()


def by_layer(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["layer"]["id"]: each for each in report["layers"]}


def test_a_probe_sweep_estimates_every_layer_and_measures_its_list(digits: Digits) -> None:
    exact, probed = digits.report(), digits.report(method="probe")
    layers = by_layer(probed)
    assert {each["state"] for each in layers.values()} == {"estimated"}
    assert all(each["score"] is None for each in layers.values())
    measured = {layer: each["score"]["measures"]["kl"]["value"] for layer, each in by_layer(exact).items()}
    estimates = {layer: each["estimate"]["measures"]["kl"]["value"] for layer, each in layers.items()}
    order = sorted(measured)
    # KL divergences of 48 samples hang on a few of them; benchmarks.probe shows more
    assert spearmanr([measured[each] for each in order], [estimates[each] for each in order]).statistic > 0.85
    ranked = sorted(layers, key=lambda each: layers[each]["rank"])
    assert [estimates[each] for each in ranked] == sorted(estimates.values(), reverse=True)
    # without a budget the most sensitive quarter falls back, and that very model was run
    decision = probed["decision"]
    assert decision["fallback"] == ranked[:5]
    assert decision["chosen"]["score"]["drop"]["samples"] == SAMPLES
    assert set(probed["controls"]) == {"fp32", "fp32_repeated", "all_int8"}
    assert "layers ranked by probes, of which 0 of 19 were measured too" in decision["explanation"]


def test_probe_then_exact_measures_what_is_doubtful_or_near_the_end_and_no_more(digits: Digits) -> None:
    asked: dict[str, Any] = {"metric": {"name": "top1"}, "budget": {"max_drop": 0.02}}
    exact, mixed = by_layer(digits.report(**asked)), digits.report(method="probe_then_exact", **asked)
    layers = by_layer(mixed)
    measured = {layer for layer, each in layers.items() if each["state"] == "measured"}
    assert 0 < len(measured) < LAYERS
    for layer in measured:
        assert layers[layer]["score"] == exact[layer]["score"], "the exact sweep's own numbers"
    assert all(each["estimate"]["beyond_linear"] is False for each in layers.values() if each["state"] == "estimated")
    assert mixed["decision"]["status"] == "met"
    assert mixed["decision"]["chosen"]["score"]["drop"]["value"] <= 0.02


def test_a_repeated_probe_sweep_probes_and_measures_nothing(digits: Digits) -> None:
    first = digits.report(method="probe")
    again = digits.submit(method="probe", budget={"max_drop": 1.0})
    digits.installation.run_until()
    with digits.installation.context.database.read() as session:
        probes = units.units_of(session, again, UnitKind.PROBE)
        found = [each.result for kind in (UnitKind.MEASURE,) for each in units.units_of(session, again, kind)]
    assert [each.result for each in probes] == [{"found": True}] * 2
    assert all(each["found"] == each["variants"] for each in found)
    assert by_layer(digits.installation.report(again)) == by_layer(first)


def test_shards_are_probed_apart_and_add_up_to_one(digits: Digits) -> None:
    two, one = digits.report(method="probe"), digits.report(method="probe", shard_size=SAMPLES)
    for each, other in zip(two["layers"], one["layers"], strict=True):
        mine, theirs = (found["estimate"]["measures"]["mse"] for found in (each, other))
        # micro-batches are cut elsewhere, and kernels of other sizes sum in another order
        assert mine["value"] == pytest.approx(theirs["value"], rel=1e-3)
        assert mine["samples"] == theirs["samples"] == SAMPLES


def test_the_table_grows_with_the_probed_shards(digits: Digits) -> None:
    installation, sweep_id = digits.installation, digits.submit(method="probe")
    lease = installation.run_until(UnitKind.PROBE)
    assert lease is not None
    assert installation.row(sweep_id).phase == Phase.PROBE
    installation.run(lease)
    with installation.context.database.read() as session:
        rows = sweeps.layers(session, sweeps.get(session, sweep_id))
        at_half = progress.of_sweep(session, sweeps.get(session, sweep_id)).fraction
    assert {each.estimate.measures["mse"].samples for each in rows if each.estimate} == {SHARD}
    assert {each.state for each in rows} == {"estimated"}
    installation.run_until(UnitKind.MEASURE)
    with installation.context.database.read() as session:
        rows = sweeps.layers(session, sweeps.get(session, sweep_id))
        later = progress.of_sweep(session, sweeps.get(session, sweep_id)).fraction
    assert {each.estimate.measures["mse"].samples for each in rows if each.estimate} == {SAMPLES}
    assert 0.07 < at_half < later < 0.85


def test_a_lost_probe_is_made_again_and_changes_nothing(digits: Digits) -> None:
    installation, sweep_id = digits.installation, digits.submit(method="probe", seed=7)
    lease = installation.run_until(UnitKind.PROBE)
    assert lease is not None
    installation.let_expire(lease)
    with installation.context.database.write() as session:
        assert lost_units.take_back(session, lease.unit_id, max_attempts=3) is UnitState.QUEUED
    installation.run(lease)  # the late worker is fenced
    with installation.context.database.read() as session:
        assert not any(each.result_sha256 for each in units.units_of(session, sweep_id, UnitKind.PROBE))
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED
    samples = {each["estimate"]["measures"]["kl"]["samples"] for each in installation.report(sweep_id)["layers"]}
    assert samples == {SAMPLES}, "each shard once"


def test_excluded_layers_are_not_probed(digits: Digits) -> None:
    report = digits.report(method="probe", exclude=["stem*"])
    states = {each["layer"]["name"]: each for each in report["layers"]}
    out = [each for name, each in states.items() if name.startswith("stem")]
    assert out
    assert all(each["state"] == "excluded" and each["estimate"] is None for each in out)
    assert sum(each["state"] == "estimated" for each in states.values()) == LAYERS - len(out)


def test_interactions_are_a_file_of_the_pairs_that_are_not_noise(digits: Digits) -> None:
    sweep_id = digits.submit(method="probe")
    digits.installation.run_until()
    with digits.installation.context.database.read() as session:
        (found,) = [each for each in sweeps.artifacts(session, sweep_id) if each.name == "interactions.csv"]
        shards = units.units_of(session, sweep_id, UnitKind.PROBE)
    blobs = digits.installation.context.blobs
    rows = list(csv.DictReader(io.StringIO(blobs.read(found.sha256).decode())))
    sums = [ProbeSums.from_bytes(blobs.read(str(each.result_sha256))) for each in shards]
    values = (sums[0] + sums[1]).mse.first / SAMPLES
    names = {each["layer"]["name"]: index for index, each in enumerate(digits.installation.report(sweep_id)["layers"])}
    mse = [each for each in rows if each["measure"] == "mse"]
    assert 0 < len(mse) < LAYERS * (LAYERS - 1) / 2
    for each in mse:
        expected = 2 * values[names[each["layer"]], names[each["other_layer"]]]
        assert float(each["value"]) == pytest.approx(expected)
        assert 0 < abs(float(each["shrunk"])) < abs(float(each["value"]))
        assert abs(float(each["value"])) > 2 * float(each["standard_error"])


def test_the_cross_entropy_change_is_estimated_where_it_is_asked_for(digits: Digits) -> None:
    report = digits.report(method="probe", probe={"loss": True, "directions": 2})
    exact = digits.report()
    for each, other in zip(report["layers"], exact["layers"], strict=True):
        assert set(each["estimate"]["measures"]) == {"mse", "kl", "loss_change"}
        assert other["estimate"] is None


def test_layers_are_contested_where_their_intervals_reach_over_the_end() -> None:
    ends = {"a": (8, 12), "b": (5, 7), "c": (4, 5.5), "d": (2, 3), "e": (1, 5.2)}
    values = {
        layer: Interval(value=(low + high) / 2, low=low, high=high, method="", samples=9)
        for layer, (low, high) in ends.items()
    }
    known = Known({}, {}, values, rank_by(values))
    assert at_the_end(known, "ab") == ["b", "c", "e"]
    assert at_the_end(known, "ac") == ["c", "b", "e"]
    assert at_the_end(known, "a") == []
    assert at_the_end(known, "") == []
    assert at_the_end(known, "abcde") == []


def test_a_layer_without_an_interval_is_contested_wherever_the_end_is() -> None:
    values = {
        "a": Interval(value=3.0, low=2.5, high=3.5, method="", samples=9),
        "b": Interval(value=1.0, low=0.5, high=1.5, method="", samples=9),
        "c": Interval(value=None, low=None, high=None, method="no derivative", samples=9),
    }
    known = Known({}, {}, values, rank_by(values))
    assert [each.layer_id for each in known.ranking] == ["a", "b", "c"]
    assert at_the_end(known, "a") == ["c"]
    assert at_the_end(known, "ab") == ["a", "b", "c"], "it may be the most sensitive of all"


def test_unlabelled_samples_do(digits: Digits) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, inputs=np.load(DIGITS / "eval.npz")["inputs"][:SAMPLES])
    unlabelled = digits.installation.dataset(buffer.getvalue())
    report = digits.report(method="probe", dataset=unlabelled, metric={"name": "mse"})
    ranked = sorted(report["layers"], key=lambda each: each["rank"])
    found = [each["estimate"]["measures"]["mse"]["value"] for each in ranked]
    assert found == sorted(found, reverse=True)
