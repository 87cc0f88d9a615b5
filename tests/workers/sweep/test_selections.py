"""Whole sweeps that are asked again over the API, and compared."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.domain.states import SweepState, UnitKind
from service.selection.evidence import Evidence
from tests.service.api.conftest import assert_problem, client_of
from tests.workers.installation import Installation, npz_bytes


@pytest.fixture
def http(installation: Installation) -> Iterator[TestClient]:
    context = installation.context
    app = create_app(context.settings, context.database, context.blobs)
    with client_of(app, context.settings) as client:
        yield client


def decided(installation: Installation, **settings: Any) -> str:
    asked = {"dataset": installation.dataset(npz_bytes(96)), "selection": {}, "budget": {"max_drop": 1.0}, **settings}
    sweep_id = installation.sweep(**asked)
    assert installation.run_until() is None
    assert installation.state(sweep_id) is SweepState.SUCCEEDED
    return sweep_id


@pytest.mark.parametrize(
    "asked",
    [
        {"selection": {}, "budget": {"max_drop": 1.0}},
        {"selection": {"holdout": 0}, "budget": {"max_drop": 1e-9}},
        {"selection": {"algorithm": "greedy"}, "budget": {"max_drop": 1e-9}},
        {"selection": {"algorithm": "top_k", "top_k": 1}, "budget": {"max_drop": 1.0}},
        {"selection": {}, "budget": {"max_drop": 1.0}, "method": "probe"},
        {"selection": {}, "budget": {"max_drop": 1.0}, "mode": "one_off"},
    ],
    ids=["optimal", "no holdout", "greedy", "top_k", "probed", "one_off"],
)
def test_a_sweeps_own_question_has_its_own_answer(
    installation: Installation, http: TestClient, asked: dict[str, Any]
) -> None:
    sweep_id = decided(installation, **asked)
    question = {key: asked[key] for key in ("selection", "budget")}
    answer = http.post(f"/v1/sweeps/{sweep_id}/selections", json=question)
    assert answer.status_code == 201, answer.text
    own, found = installation.row(sweep_id).decision, answer.json()["result"]
    assert found["state"] == "verified"
    assert (found["status"], sorted(found["fallback"])) == (own["status"], sorted(own["fallback"]))
    if own["status"] == "met":
        assert found["measured"] == own["chosen"]["score"]["drop"]


def test_other_questions_stand_side_by_side_and_the_sweep_stays_as_it_is(
    installation: Installation, http: TestClient
) -> None:
    sweep_id = decided(installation)
    base, before = f"/v1/sweeps/{sweep_id}/selections", http.get(f"/v1/sweeps/{sweep_id}").json()
    assert http.get(base).json() == {"items": []}
    bodies = [
        {"budget": {"max_drop": 1.0}},
        {"selection": {"never_int8": ["first"]}, "budget": {"max_drop": 1.0}},
        {"selection": {"cost": "weight_bytes"}, "budget": {"max_drop": 1e-9}},
    ]
    made = [http.post(base, json=body) for body in bodies]
    assert [each.status_code for each in made] == [201, 201, 201]
    items = http.get(base).json()["items"]
    assert [each["id"] for each in items] == [each.json()["id"] for each in made]
    assert (items[0]["state"], items[0]["answer"]) == ("done", "verified")
    assert (items[0]["algorithm"], items[0]["floating"], items[0]["cost_value"]) == ("optimal", 0, 0.0)
    assert items[0]["measured"]["samples"] == 48
    # nothing with "first" in floating point had to be run for a budget that all int8 meets
    assert (items[1]["state"], items[1]["status"], items[1]["measured"]) == ("predicted", "predicted_met", None)
    assert (items[2]["cost"], items[2]["status"]) == ("weight_bytes", "not_met")
    one = http.get(made[1].headers["location"]).json()
    assert one == made[1].json()
    assert one["result"]["fallback"] == ["first"]
    assert one["question"]["selection"]["algorithm"] == "optimal"
    assert http.delete(made[1].headers["location"]).status_code == 204
    assert_problem(http.get(made[1].headers["location"]), 404, "selection-not-found")
    assert http.get(f"/v1/sweeps/{sweep_id}").json() == before
    assert http.delete(f"/v1/sweeps/{sweep_id}").status_code == 204
    assert installation.everything()["selections"] == []


def test_refusals_name_the_field(installation: Installation, http: TestClient) -> None:
    sweep_id = decided(installation)
    url, budget = f"/v1/sweeps/{sweep_id}/selections", {"max_drop": 1.0}

    def refused(selection: dict[str, Any], field: str, code: str) -> None:
        response = http.post(url, json={"selection": selection, "budget": budget})
        assert assert_problem(response, 422, code)["errors"][0]["field"] == field

    refused({"always_int8": ["nothing"]}, "selection.always_int8", "pattern-matches-nothing")
    refused({"cost": "latency"}, "selection.cost", "cost-not-known")
    refused({"holdout": 0.2}, "selection.holdout", "invalid-input")
    refused({"algorithm": "greedy", "cost": "macs"}, "selection.cost", "invalid-input")
    refused({"algorithm": "best"}, "selection.algorithm", "invalid-input")
    response = http.post(url, json={"budget": {"max_drop": 0.1, "relative": True}})
    assert assert_problem(response, 422, "budget-not-applicable")["errors"][0]["field"] == "budget.relative"
    assert_problem(http.post(url, json={}), 422, "invalid-input", "budget")
    assert installation.everything()["selections"] == []


def test_a_sweep_that_is_not_decided_cannot_be_asked(installation: Installation, http: TestClient) -> None:
    sweep_id = installation.sweep()
    question = {"budget": {"max_drop": 1.0}}
    response = http.post(f"/v1/sweeps/{sweep_id}/selections", json=question)
    assert_problem(response, 409, "decision-not-ready", "not decided yet")
    assert response.headers["retry-after"]
    installation.run_until(UnitKind.SELECT)
    assert_problem(http.post(f"/v1/sweeps/{sweep_id}/selections", json=question), 409, "decision-not-ready")
    assert_problem(http.post("/v1/sweeps/swp_000000000000/selections", json=question), 404, "sweep-not-found")
    assert_problem(http.get("/v1/sweeps/swp_000000000000/selections"), 404, "sweep-not-found")
    cancelled = installation.sweep()
    installation.cancel(cancelled)
    assert_problem(http.post(f"/v1/sweeps/{cancelled}/selections", json=question), 409, "sweep-cancelled")


def test_a_race_has_nothing_to_decide_again_by(installation: Installation, http: TestClient) -> None:
    sweep_id = decided(installation, method="racing")
    response = http.post(f"/v1/sweeps/{sweep_id}/selections", json={"budget": {"max_drop": 1.0}})
    assert_problem(response, 409, "no-evidence", "method exact")
    assert not response.headers.get("retry-after")


def test_evidence_comes_back_from_the_database_as_it_was(installation: Installation) -> None:
    sweep_id = decided(installation)
    (row,) = [each for each in installation.everything()["sweeps"] if each["id"] == sweep_id]
    evidence = Evidence.model_validate(row["evidence"])
    assert evidence.held_out == 48
    assert evidence.model_dump(mode="json") == row["evidence"]


def test_tables_are_compared_pair_by_pair(installation: Installation, http: TestClient) -> None:
    first = decided(installation)
    calibrated = decided(installation, calibration={"method": "percentile", "percentile": 99.0})
    probed = decided(installation, method="probe")
    off = decided(installation, mode="one_off")
    found = http.get(f"/v1/sweeps/compare?ids={first},{calibrated},{probed},{off}").json()
    pairs = {(each["first"], each["second"]): each for each in found["pairs"]}
    assert len(pairs) == 6
    one = pairs[first, calibrated]
    assert [each["setting"] for each in one["settings"]] == ["calibration"]
    assert one["settings"][0]["second"]["percentile"] == 99.0
    assert one["table"]["layers"] == 2
    # alone, left out, or estimated: the same layer is the more sensitive
    assert [pairs[first, each]["table"]["spearman"] for each in (probed, off)] == [1.0, 1.0]
    assert pairs[first, probed]["table"]["only_first"] == []
    assert "mode" in [each["setting"] for each in pairs[first, off]["settings"]]


def test_comparisons_that_cannot_be_made_say_why(installation: Installation, http: TestClient) -> None:
    sweep_id, waiting = decided(installation), installation.sweep()

    def compared(ids: str) -> Any:
        return http.get("/v1/sweeps/compare", params={"ids": ids})

    assert_problem(compared(sweep_id), 422, "invalid-input", "2 to 10")
    assert_problem(compared(",".join([sweep_id] * 11)), 422, "invalid-input", "11 given")
    assert_problem(compared(f"{sweep_id},{sweep_id}"), 422, "invalid-input", "twice")
    assert_problem(compared(f"{sweep_id},x"), 404, "sweep-not-found")
    assert_problem(compared(f"{sweep_id},{waiting}"), 409, "layers-not-ready", waiting)
    assert_problem(http.get("/v1/sweeps/compare"), 422, "invalid-input", "ids")
