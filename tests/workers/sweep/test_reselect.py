"""Selections that lists are measured for, on a sweep that has its decision; asked over the API, done by a worker."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.app import create_app
from service.domain.results import Decision
from service.domain.states import SelectionState, SweepState, UnitKind, UnitState
from service.selection.what_if import Selected
from service.store import workers
from service.store.installation import code_speaks
from service.store.tables import SelectionRow, UnitRow
from service.store.workers import Heartbeat
from tests.service.api.conftest import assert_problem, client_of
from tests.workers.installation import Installation, npz_bytes
from workers.reconciler import reconcile

NEVER_FIRST = {"selection": {"never_int8": ["first"]}, "budget": {"max_drop": 1.0}, "verify": True}


@pytest.fixture
def http(installation: Installation) -> Iterator[TestClient]:
    context = installation.context
    app = create_app(context.settings, context.database, context.blobs)
    with client_of(app, context.settings) as client:
        yield client


@pytest.fixture
def sweep_id(installation: Installation) -> str:
    """Decided, with three of its six shards held out; no list with a layer in floating point had to be run."""
    asked = {"dataset": installation.dataset(npz_bytes(96)), "selection": {}, "budget": {"max_drop": 1.0}}
    made = installation.sweep(**asked)
    assert installation.run_until() is None
    assert installation.state(made) is SweepState.SUCCEEDED
    return made


def asked(http: TestClient, sweep_id: str, question: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(f"/v1/sweeps/{sweep_id}/selections", json=question)
    assert answer.status_code in (201, 202), answer.text
    document: dict[str, Any] = answer.json()
    return document


def looked_at(http: TestClient, selection: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = http.get(selection["links"]["self"]).json()
    return document


def units(installation: Installation, selection: dict[str, Any]) -> list[UnitRow]:
    with installation.context.database.read() as session:
        query = select(UnitRow).where(UnitRow.subject_id == selection["id"])
        return list(session.scalars(query.order_by(UnitRow.created_at, UnitRow.round, UnitRow.ordinal)))


def test_a_prediction_is_measured_until_it_is_a_decision_and_the_sweep_stays_as_it_is(
    installation: Installation, http: TestClient, sweep_id: str
) -> None:
    before = http.get(f"/v1/sweeps/{sweep_id}").json()
    table = http.get(f"/v1/sweeps/{sweep_id}/layers").json()
    installation.hints()
    made = asked(http, sweep_id, NEVER_FIRST)
    assert (made["state"], made["result"]["state"], made["started_at"]) == ("queued", "predicted", None)
    assert installation.hints() == ["onnxruntime"]
    lease = installation.step()
    assert lease is not None
    assert (lease.kind, lease.selection_id, lease.sweep_id) == (UnitKind.SELECT, made["id"], sweep_id)
    running = looked_at(http, made)
    assert (running["state"], running["result"]) == ("running", made["result"])
    assert running["progress"]["units_total"] == 1 + 6
    installation.run_until()
    done = looked_at(http, made)
    found, decision = done["result"], done["result"]["decision"]
    assert (done["state"], found["state"], found["status"]) == ("done", "verified", "met")
    assert (done["progress"]["fraction"], done["eta_seconds"], done["problem"]) == (1.0, 0.0, None)
    assert found["fallback"] == ["first"]
    assert found["measured"] == decision["chosen"]["score"]["drop"]
    assert (found["measured"]["samples"], found["all_int8"]["drop"]["samples"], found["fp32"]["samples"]) == (48,) * 3
    assert decision["confidence"] == 0.975
    assert any("that of this one question" in each for each in found["notes"])
    assert http.get(f"/v1/sweeps/{sweep_id}").json() == before
    assert http.get(f"/v1/sweeps/{sweep_id}/layers").json() == table


def test_the_answer_is_that_of_a_sweep_that_was_asked_the_same(installation: Installation, http: TestClient) -> None:
    data = installation.dataset(npz_bytes(96))
    question = {"selection": {"never_int8": ["second"]}, "budget": {"max_drop": 1e-3}}
    first = installation.sweep(dataset=data, selection={}, budget={"max_drop": 1.0})
    installation.run_until()
    made = asked(http, first, {**question, "verify": True})
    installation.run_until()
    other = installation.sweep(dataset=data, **question)
    installation.run_until()
    own = Decision.model_validate(installation.row(other).decision)
    found = Selected.model_validate(looked_at(http, made)["result"]).decision
    assert found is not None
    assert (found.status, found.fallback, found.chosen) == (own.status, own.fallback, own.chosen)


@pytest.mark.parametrize("selection", [{}, {"algorithm": "greedy"}, {"algorithm": "top_k", "top_k": 1}])
def test_every_algorithm_has_its_lists_measured(
    installation: Installation, http: TestClient, selection: dict[str, Any]
) -> None:
    nothing = {"selection": {"algorithm": "top_k", "top_k": 0}, "budget": {"max_drop": 1.0}}
    sweep_id = installation.sweep(dataset=installation.dataset(npz_bytes(96)), **nothing)
    installation.run_until()
    made = asked(http, sweep_id, {"selection": selection, "budget": {"max_drop": 1e-12}, "verify": True})
    assert made["state"] == "queued"
    installation.run_until()
    done = looked_at(http, made)
    assert (done["state"], done["result"]["state"]) == ("done", "verified")
    assert done["result"]["status"] == "not_met"
    assert any(each["fallback"] for each in done["result"]["decision"]["measured"])


def test_what_was_measured_for_another_selection_is_found(
    installation: Installation, http: TestClient, sweep_id: str
) -> None:
    first = asked(http, sweep_id, NEVER_FIRST)
    installation.run_until()
    again = asked(http, sweep_id, NEVER_FIRST)
    installation.run_until()
    ran, found = ([each for each in units(installation, one) if each.kind == "verify"] for one in (first, again))
    # fp32 and all in int8 are the sweep's, and the list too where it is the table's variant of the other layer
    assert [(each.result["variants"], each.result["found"]) for each in ran] == [(3, 3)] * 3 + [(3, 2)] * 3
    assert [(each.result["variants"], each.result["found"]) for each in found] == [(3, 3)] * 6
    assert looked_at(http, again)["result"] == looked_at(http, first)["result"]


def test_what_is_measured_already_needs_no_work(installation: Installation, http: TestClient, sweep_id: str) -> None:
    made = asked(http, sweep_id, {"budget": {"max_drop": 1.0}, "verify": True})
    assert (made["state"], made["progress"], made["result"]["state"]) == ("done", None, "verified")
    assert made["finished_at"] == made["created_at"]
    assert units(installation, made) == []


def test_only_what_is_to_be_measured_needs_a_worker(
    installation: Installation, http: TestClient, sweep_id: str
) -> None:
    decided = asked(http, sweep_id, {"budget": {"max_drop": 1.0}, "verify": True})
    predicted = asked(http, sweep_id, {**NEVER_FIRST, "verify": False})
    offer = {"available": False, "reason": "its library is gone"}
    with installation.context.database.write() as session:
        versions = code_speaks().versions()
        workers.beat(session, Heartbeat("host:1", "host", 1, ["data"], {"onnxruntime": offer}, versions))
    assert http.post(f"{decided['links']['self']}/verify").json()["state"] == "done"
    assert_problem(http.post(predicted["links"]["verify"]), 503, "backend-unavailable", "its library is gone")
    assert looked_at(http, predicted)["state"] == "predicted"
    assert units(installation, predicted) == []


def test_a_prediction_is_measured_later_once(installation: Installation, http: TestClient, sweep_id: str) -> None:
    made = asked(http, sweep_id, {**NEVER_FIRST, "verify": False})
    assert (made["state"], made["progress"]) == ("predicted", None)
    assert http.post(made["links"]["cancel"]).json()["state"] == "predicted"
    answers = [http.post(made["links"]["verify"]) for _ in range(2)]
    assert [each.status_code for each in answers] == [202, 202]
    assert [each.json()["state"] for each in answers] == ["queued", "queued"]
    assert len(units(installation, made)) == 1
    installation.run_until()
    assert looked_at(http, made)["state"] == "done"
    gone = http.post(f"/v1/sweeps/{sweep_id}/selections/sel_000000000000/verify")
    assert_problem(gone, 404, "selection-not-found")


def test_a_lost_worker_costs_no_result(installation: Installation, http: TestClient, sweep_id: str) -> None:
    made = asked(http, sweep_id, NEVER_FIRST)
    for kind in (UnitKind.SELECT, UnitKind.VERIFY):
        lost = installation.run_until(kind)
        assert lost is not None
        installation.let_expire(lost)
        reconcile(installation.context)
        installation.run(lost)  # it wakes up late, and is fenced
        assert installation.unit(lost).state == UnitState.QUEUED
    installation.run_until()
    assert looked_at(http, made)["result"]["status"] == "met"


def test_a_selection_that_loses_every_worker_fails_and_keeps_its_prediction(
    installation: Installation, http: TestClient, sweep_id: str
) -> None:
    made = asked(http, sweep_id, NEVER_FIRST)
    for _ in range(installation.context.settings.max_attempts):
        lost = installation.run_until(UnitKind.VERIFY)
        assert lost is not None
        installation.let_expire(lost)
        reconcile(installation.context)
    failed = looked_at(http, made)
    assert (failed["state"], failed["problem"]["code"], failed["result"]) == ("failed", "worker-lost", made["result"])
    assert {each.state for each in units(installation, made)} <= {UnitState.DONE, UnitState.FAILED}
    assert installation.state(sweep_id) is SweepState.SUCCEEDED


def test_cancelling_before_and_while_a_worker_is_at_it(
    installation: Installation, http: TestClient, sweep_id: str
) -> None:
    queued = asked(http, sweep_id, NEVER_FIRST)
    assert http.post(queued["links"]["cancel"]).json()["state"] == "cancelled"
    running = asked(http, sweep_id, NEVER_FIRST)
    held = installation.run_until(UnitKind.VERIFY)
    assert held is not None
    assert held.selection_id == running["id"]
    answer = http.post(running["links"]["cancel"]).json()
    assert (answer["state"], answer["cancel_requested"]) == ("running", True)
    installation.run(held)
    cancelled = looked_at(http, running)
    assert (cancelled["state"], cancelled["eta_seconds"]) == ("cancelled", None)
    assert http.post(running["links"]["cancel"]).json()["state"] == "cancelled"
    assert installation.claim() is None
    # a worker that died with the cancel unseen
    lost = asked(http, sweep_id, NEVER_FIRST)
    held = installation.run_until(UnitKind.VERIFY)
    assert held is not None
    http.post(lost["links"]["cancel"])
    installation.let_expire(held)
    reconcile(installation.context)
    assert looked_at(http, lost)["state"] == SelectionState.CANCELLED


def test_deleting_ends_the_work(installation: Installation, http: TestClient, sweep_id: str) -> None:
    made = asked(http, sweep_id, NEVER_FIRST)
    held = installation.run_until(UnitKind.VERIFY)
    assert held is not None
    assert http.delete(made["links"]["self"]).status_code == 204
    installation.run(held)
    assert units(installation, made) == []
    asked(http, sweep_id, NEVER_FIRST)
    held = installation.run_until(UnitKind.VERIFY)
    assert held is not None
    assert http.delete(f"/v1/sweeps/{sweep_id}").status_code == 204
    installation.run(held)
    kept = installation.everything()
    assert (kept["selections"], [each for each in kept["work_units"] if each["sweep_id"]]) == ([], [])


def test_a_sweep_that_fails_in_its_report_leaves_its_selections_alone(
    installation: Installation, http: TestClient
) -> None:
    data = installation.dataset(npz_bytes(96))
    sweep_id = installation.sweep(dataset=data, selection={}, budget={"max_drop": 1.0})
    report = installation.run_until(UnitKind.REPORT)
    assert report is not None
    before = http.get(f"/v1/sweeps/{sweep_id}").json()
    made = asked(http, sweep_id, NEVER_FIRST)
    assert http.get(f"/v1/sweeps/{sweep_id}").json()["progress"] == before["progress"]
    installation.cancel(sweep_id)
    installation.run(report)
    assert installation.state(sweep_id) is SweepState.CANCELLED
    installation.run_until()
    assert looked_at(http, made)["state"] == "done"


def test_the_curve_is_made_once_and_kept(installation: Installation, http: TestClient, sweep_id: str) -> None:
    made = asked(http, sweep_id, NEVER_FIRST)
    installation.run_until()
    steps = [each for each in units(installation, made) if each.kind == "select"]
    assert len(steps) == 2
    assert len({each.content_key for each in steps}) == len({each.result_sha256 for each in steps}) == 1
    with installation.context.database.read() as session:
        rows = session.scalars(select(UnitRow).where(UnitRow.subject_id == sweep_id, UnitRow.kind == UnitKind.SELECT))
        own = {each.content_key for each in rows}
        assert session.get_one(SelectionRow, made["id"]).round == 1
    assert len(own) == 1
    assert None not in own
    assert own.isdisjoint({each.content_key for each in steps})  # other pins, another curve
