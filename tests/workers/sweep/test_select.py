"""The decision of whole sweeps: what is chosen on one part of the samples and verified on the other."""

from typing import Any

import numpy as np
import pytest

from service.domain.results import Decision
from service.domain.states import SweepState, UnitKind
from tests.workers.installation import Installation, npz_bytes, onnx_bytes
from workers.metrics.shard_result import ShardResult
from workers.sweep.plan import Plan

SAMPLES = 96


def decided(installation: Installation, **settings: Any) -> tuple[str, Decision]:
    asked = {"dataset": installation.dataset(npz_bytes(SAMPLES)), "selection": {}, **settings}
    sweep_id = installation.sweep(**asked)
    assert installation.run_until() is None
    row = installation.row(sweep_id)
    assert row.state == SweepState.SUCCEEDED, row.problem
    return sweep_id, Decision.model_validate(row.decision)


def units(installation: Installation, sweep_id: str, kind: UnitKind) -> list[Any]:
    rows = installation.everything()["work_units"]
    return [each for each in rows if each["sweep_id"] == sweep_id and each["kind"] == kind]


def test_the_table_never_sees_the_samples_that_lists_are_verified_on(installation: Installation) -> None:
    sweep_id, decision = decided(installation, budget={"max_drop": 1.0})
    plan = Plan.model_validate(installation.row(sweep_id).plan)
    assert (plan.held_out_samples, plan.samples) == (SAMPLES // 2, SAMPLES)
    measured = units(installation, sweep_id, UnitKind.MEASURE)
    assert max(each["payload"]["stop"] for each in measured) == SAMPLES // 2
    (layer, *_) = installation.report(sweep_id)["layers"]
    assert layer["score"]["drop"]["samples"] == SAMPLES // 2
    assert decision.chosen is not None
    assert decision.chosen.score.drop.samples == SAMPLES // 2


def test_probes_do_not_see_them_either(installation: Installation) -> None:
    sweep_id, _ = decided(installation, budget={"max_drop": 1.0}, method="probe")
    for kind in (UnitKind.PROBE, UnitKind.MEASURE):
        assert max(each["payload"]["stop"] for each in units(installation, sweep_id, kind)) == SAMPLES // 2


def test_the_drop_of_a_list_is_that_of_the_held_out_samples(installation: Installation) -> None:
    sweep_id, decision = decided(installation, budget={"max_drop": 1e-9}, selection={"never_int8": ["first"]})
    values: dict[bool, list[float]] = {False: [], True: []}
    for each in units(installation, sweep_id, UnitKind.VERIFY):
        result = ShardResult.from_bytes(installation.context.blobs.read(each["result_sha256"]))
        if "mixed:first" in result.variants:
            row = result.measures["mse"][result.variants.index("mixed:first")]
            values[each["payload"]["start"] >= SAMPLES // 2].extend(float(one) for one in row)
    (found,) = [each for each in decision.measured if each.fallback == ("first",)]
    assert found.score.drop.value == pytest.approx(float(np.mean(values[True])))
    assert np.mean(values[True]) != pytest.approx(float(np.mean(values[False]))), "the parts differ"


def test_a_list_is_run_on_both_parts_and_no_variant_twice_on_a_shard(installation: Installation) -> None:
    sweep_id, _ = decided(installation, budget={"max_drop": 1e-9})
    seen: dict[int, list[str]] = {}
    for kind in (UnitKind.MEASURE, UnitKind.VERIFY):
        for each in units(installation, sweep_id, kind):
            result = ShardResult.from_bytes(installation.context.blobs.read(each["result_sha256"]))
            seen.setdefault(each["payload"]["start"], []).extend(result.variants)
    for variants in seen.values():
        again = [each for each in variants if each != "fp32"]
        assert len(again) == len(set(again))
    plan = Plan.model_validate(installation.row(sweep_id).plan)
    lists = [{each for each in found if each.startswith("mixed:")} for found in seen.values()]
    assert len(lists) == len(plan.shards)
    assert all(each == lists[0] for each in lists)


def test_a_budget_that_int8_meets_keeps_all_layers_in_int8(installation: Installation) -> None:
    _, decision = decided(installation, budget={"max_drop": 1.0})
    assert (decision.status, decision.fallback, decision.certain) == ("met", (), True)
    assert not decision.same_samples
    assert decision.confidence == 0.975
    assert decision.cost == "layers"
    assert decision.curve[0].fallback == ()


def test_a_budget_between_is_met_by_a_list_whose_upper_bound_is_within(installation: Installation) -> None:
    sweep_id, _ = decided(installation, budget={"max_drop": 1.0})
    drops = {each["layer"]["id"]: each["score"]["drop"]["value"] for each in installation.report(sweep_id)["layers"]}
    less, more = sorted(drops, key=lambda each: drops[each])
    budget = (drops[less] + drops[more]) / 2
    dataset = installation.dataset(npz_bytes(800))  # the intervals lie clear of it
    _, decision = decided(installation, dataset=dataset, budget={"max_drop": budget})
    assert (decision.status, decision.fallback) == ("met", (more,))
    assert decision.chosen is not None
    assert decision.chosen.score.drop.high is not None
    assert decision.chosen.score.drop.high <= budget
    assert decision.chosen.cost == 1.0
    assert decision.chosen.predicted is not None


def test_a_budget_that_nothing_meets_says_so_and_names_every_layer(installation: Installation) -> None:
    _, decision = decided(installation, budget={"max_drop": 0.0})
    assert (decision.status, len(decision.fallback)) == ("not_met", 2)


def test_pins_hold_whatever_is_cheaper(installation: Installation) -> None:
    _, decision = decided(installation, budget={"max_drop": 1.0}, selection={"never_int8": ["first"]})
    assert decision.fallback == ("first",)
    _, decision = decided(installation, budget={"max_drop": 0.0}, selection={"always_int8": ["second"]})
    assert decision.status == "not_met"
    assert "second" not in decision.fallback


def test_layers_that_the_caller_joins_fall_back_together(installation: Installation) -> None:
    selection = {"groups": [["first", "second"]], "never_int8": ["first"]}
    _, decision = decided(installation, budget={"max_drop": 1.0}, selection=selection)
    assert set(decision.fallback) == {"first", "second"}


@pytest.mark.parametrize(
    "selection", [{"algorithm": "top_k", "top_k": 1}, {"algorithm": "threshold", "threshold": 1.2e-4}]
)
def test_a_list_that_was_asked_for_is_verified_on_held_out_samples_too(
    installation: Installation, selection: dict[str, Any]
) -> None:
    _, decision = decided(installation, budget={"max_drop": 1.0}, selection=selection)
    assert (decision.status, decision.same_samples, decision.algorithm) == ("met", False, selection["algorithm"])
    assert len(decision.fallback) == 1
    assert [each.fallback for each in decision.measured] == [decision.fallback]


def test_without_a_held_out_part_lists_are_verified_on_the_samples_that_they_were_chosen_on(
    installation: Installation,
) -> None:
    sweep_id, decision = decided(installation, budget={"max_drop": 1.0}, selection={"holdout": 0})
    assert (decision.status, decision.same_samples, decision.confidence) == ("met", True, None)
    assert Plan.model_validate(installation.row(sweep_id).plan).held_out == 0


def test_the_cost_that_was_asked_for_is_the_one_that_is_kept_small(installation: Installation) -> None:
    _, decision = decided(installation, budget={"max_drop": 0.0}, selection={"cost": "weight_bytes"})
    assert decision.cost == "weight_bytes"
    assert decision.curve[0].cost == 20 + 15  # a byte for each weight of 5 x 4 and 3 x 5
    assert decision.curve[-1].cost == 4 * (20 + 15)


def test_taken_out_one_by_one_layers_are_weighed_by_what_is_left_without_them(installation: Installation) -> None:
    _, decision = decided(installation, budget={"max_drop": 1.0}, mode="one_off")
    assert (decision.status, decision.fallback) == ("met", ())


def test_too_few_samples_to_tell_is_said_with_how_many_would(installation: Installation) -> None:
    """Of right-or-wrong answers 8 held-out samples cannot show a drop of at most one per cent."""
    dataset = installation.dataset(npz_bytes(16))
    _, decision = decided(installation, dataset=dataset, metric={"name": "top1"}, budget={"max_drop": 0.01})
    assert decision.status == "undecidable"
    assert decision.samples_needed is None or decision.samples_needed > 16


def test_what_fails_on_held_out_samples_only_ends_the_sweep_with_the_reason(installation: Installation) -> None:
    """One sample rounds to zero in int8, of which the reciprocal is infinite; it is not among those of the choice."""
    graph = """g (float[N,4] x) => (float[N,1] y) <float[1,4] w = {1, 1, 1, 1}>
    { [first] h = Gemm <transB = 1> (x, w) [last] y = Reciprocal(h) }"""
    held_out = np.random.default_rng(0).permutation(SAMPLES)[-1]
    x = np.ones((SAMPLES, 4), np.float32)
    x[held_out] = 1e-4
    model, dataset = installation.model(onnx_bytes(graph)), installation.dataset(npz_bytes(x=x))
    sweep_id = installation.sweep(model=model, dataset=dataset, selection={}, budget={"max_drop": 1.0})
    assert installation.run_until() is None
    row = installation.row(sweep_id)
    assert (row.state, row.problem_code) == (SweepState.FAILED, "all-int8-failed")
    assert "first" in (row.problem or "") or "output 'y'" in (row.problem or "")


def test_latency_is_measured_where_it_is_what_is_to_be_kept_small(installation: Installation) -> None:
    sweep_id, decision = decided(installation, budget={"max_drop": 0.0}, selection={"cost": "latency"})
    assert decision.cost == "latency"
    assert decision.curve[0].cost > 0
    costs = Plan.model_validate(installation.row(sweep_id).plan).costs
    assert costs.timed
    assert {each.layer for each in costs.layers if each.latency} == {"first", "second"}
