"""Selections: another budget, cost, pins or algorithm, decided again from what a sweep has measured, or measures."""

from datetime import datetime
from functools import partial
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, BackgroundTasks, Body, Path, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from service.api.admission import check_question, check_workers
from service.api.deps import InServices, ProjectServices
from service.api.problems import documented
from service.api.results import ended_or
from service.api.selection_views import SelectionView
from service.api.sweeps import POLL_SECONDS, SweepId
from service.api.tidying import tidy
from service.domain.costs import CostName
from service.domain.errors import Conflict, InvalidInput
from service.domain.results import Interval, PredictedDrop
from service.domain.selections import SelectionQuestion, SelectionStatus
from service.domain.settings import BackendName, Budget, SelectionAlgorithm, SweepMethod, SweepSettings
from service.domain.states import SelectionState, SweepState
from service.store import progress, selections, sweeps, workers
from service.store.kept import KeptResults
from service.store.tables import DatasetRow, SweepRow

router = APIRouter(prefix="/v1/sweeps/{sweep_id}/selections", tags=["selections"])

SelectionId = Annotated[str, Path(max_length=64, description="A selection's id, such as `sel_4q8c1z0rk2vx`.")]
HOLDOUT = "selection.holdout"
Asked = Annotated[
    SelectionQuestion,
    Body(
        openapi_examples={
            "a smaller budget": {"value": {"budget": {"max_drop": 0.005}}},
            "measured, not only predicted": {"value": {"budget": {"max_drop": 0.005}, "verify": True}},
            "another cost": {"value": {"selection": {"cost": "weight_bytes"}, "budget": {"max_drop": 0.01}}},
            "a layer that must not be int8": {
                "value": {"selection": {"never_int8": ["head.*"]}, "budget": {"max_drop": 0.01, "relative": True}}
            },
        }
    ),
]


class SelectionSummary(BaseModel):
    """One row of the comparison of selections. ``floating``: how many layers stay in floating point.

    ``answer``: by lists that were measured (verified), or an estimate (predicted). ``cost_value`` is by ``cost``;
    ``measured``: the drop where the list was run.
    """

    id: str
    state: SelectionState
    answer: Literal["verified", "predicted"]
    status: SelectionStatus
    algorithm: str
    cost: CostName
    budget: Budget
    floating: int
    cost_value: float
    predicted: PredictedDrop | None
    measured: Interval | None
    upper_within: bool | None
    created_at: datetime

    @classmethod
    def of(cls, view: SelectionView) -> "SelectionSummary":
        """The row of a selection."""
        found = view.result
        return cls(
            id=view.id,
            state=view.state,
            answer=found.state,
            status=found.status,
            algorithm=found.algorithm,
            cost=view.question.selection.cost,
            budget=view.question.budget,
            floating=len(found.fallback),
            cost_value=found.cost,
            predicted=found.predicted,
            measured=found.measured,
            upper_within=found.upper_within,
            created_at=view.created_at,
        )


class SelectionList(BaseModel):
    """All selections of a sweep side by side, the oldest first."""

    items: list[SelectionSummary]


@router.post(
    "",
    status_code=201,
    responses={202: {"model": SelectionView, "description": "Measuring is queued"}, **documented(400, 404, 409, 503)},
)
async def create_selection(
    question: Asked, response: Response, services: InServices, sweep_id: SweepId
) -> SelectionView:
    """Decide again, at once and without a worker.

    What the sweep has measured decides where it can (`verified`). Else the answer is an estimate (`predicted`): the
    cheapest candidate whose predicted drop is within the budget, and the whole predicted curve. With `verify` workers
    then measure lists until it is a decision, as for a sweep; the estimate stands until it is.
    """
    created = partial(_create, services, sweep_id, question)
    view = await to_thread.run_sync(created, limiter=services.whole.searches)
    response.headers["Location"] = view.links.self
    if view.state.working:
        response.status_code, response.headers["Retry-After"] = 202, POLL_SECONDS
    return view


@router.post("/{selection_id}/verify", status_code=202, responses=documented(404, 503))
def verify_selection(
    services: InServices, response: Response, sweep_id: SweepId, selection_id: SelectionId
) -> SelectionView:
    """Have lists measured for a selection that is predicted only; any other stays as it is."""
    with services.database.write() as session:
        row, queue = selections.verify(session, sweep_id, selection_id)
        if queue is not None:  # what is decided already needs no worker
            _check_workers(session, sweeps.get(session, sweep_id))
        view = SelectionView.of(row, progress.of_selection(session, row))
    if queue is not None:
        services.hints.publish(queue)
    response.headers["Retry-After"] = POLL_SECONDS
    return view


@router.post("/{selection_id}/cancel", status_code=202, responses=documented(404))
def cancel_selection(services: InServices, sweep_id: SweepId, selection_id: SelectionId) -> SelectionView:
    """Cancel the measuring: at once, or as soon as its workers look. What is not being measured stays as it is."""
    with services.database.write() as session:
        row = selections.cancel(session, sweep_id, selection_id)
        return SelectionView.of(row, progress.of_selection(session, row))


@router.get("", responses=documented(404))
def list_selections(services: InServices, sweep_id: SweepId) -> SelectionList:
    """What was asked of a sweep, side by side."""
    with services.database.read() as session:
        rows = selections.of_sweep(session, sweep_id)
        views = [SelectionView.of(row, None) for row in rows]
    return SelectionList(items=[SelectionSummary.of(view) for view in views])


@router.get("/{selection_id}", responses=documented(404))
def get_selection(
    services: InServices, response: Response, sweep_id: SweepId, selection_id: SelectionId
) -> SelectionView:
    """One selection, with its curve; how far the measuring is, where there is any."""
    with services.database.read() as session:
        row = selections.get(session, sweep_id, selection_id)
        view = SelectionView.of(row, progress.of_selection(session, row))
    if view.state.working:
        response.headers["Retry-After"] = POLL_SECONDS
    return view


@router.delete("/{selection_id}", status_code=204, responses=documented(404))
def delete_selection(
    services: InServices, sweep_id: SweepId, selection_id: SelectionId, background: BackgroundTasks
) -> None:
    """Delete a selection, however far its measuring is; the sweep and its decision stay as they are."""
    with services.database.write() as session:
        selections.remove(session, sweep_id, selection_id)
    background.add_task(tidy, services.whole)


def _create(services: ProjectServices, sweep_id: str, question: SelectionQuestion) -> SelectionView:
    # here, since the service starts without the libraries of the search
    from service.selection.evidence import Evidence
    from service.selection.what_if import what_if

    with services.database.read() as session:
        sweep = sweeps.get(session, sweep_id)
        evidence = Evidence.model_validate(_evidence(sweep))
        dataset = session.get_one(DatasetRow, sweep.dataset_id)
        if question.verify:
            _check_workers(session, sweep)
    in_force = _in_force(SweepSettings.model_validate(sweep.settings), question, dataset, held_out=evidence.held_out)
    kept = KeptResults(services.whole.database, services.blobs)
    found = what_if(evidence, in_force.selection, in_force.budget, kept)
    queue = None
    with services.database.write() as session:
        row = selections.add(session, sweep_id, in_force, found)
        if question.verify:
            row, queue = selections.verify(session, sweep_id, row.id)
        view = SelectionView.of(row, progress.of_selection(session, row))
    if queue is not None:
        services.hints.publish(queue)
    return view


def _evidence(sweep: SweepRow) -> dict[str, object]:
    """What the decision rests on; raises Conflict where there is none, with what would be right."""
    if sweep.settings["method"] == SweepMethod.RACING:
        message = (
            f"sweep {sweep.id} is a race, whose layers have no number on all samples to decide again by; make a sweep "
            "with method exact, probe or probe_then_exact (what this one measured is not measured again)"
        )
        raise Conflict(message, code="no-evidence")
    if sweep.evidence is not None:
        return sweep.evidence
    if sweep.state == SweepState.SUCCEEDED:
        message = (
            f"sweep {sweep.id} was decided by a version that did not keep what a decision rests on; make the sweep "
            "again (what it measured is not measured again)"
        )
        raise Conflict(message, code="no-evidence")
    waiting = f"sweep {sweep.id} is {sweep.state} (phase {sweep.phase}); it is not decided yet"
    raise ended_or(sweep, Conflict(waiting, code="decision-not-ready"))


def _in_force(
    sweep: SweepSettings, question: SelectionQuestion, dataset: DatasetRow, *, held_out: int
) -> SelectionQuestion:
    """The question with its algorithm and the held-out share of the sweep; raises InvalidInput."""
    asked = sweep.model_copy(update={"selection": question.selection, "budget": question.budget})
    check_question(asked, dataset)
    if asked.algorithm is SelectionAlgorithm.GREEDY:
        return question
    share = sweep.selection.holdout if held_out else 0.0
    if "holdout" in question.selection.model_fields_set and question.selection.holdout != share:
        message = (
            f"{HOLDOUT}: {question.selection.holdout:g} was asked for, but the sweep held out {share:g} of its samples "
            "before it measured; leave it out"
        )
        raise InvalidInput(message, field=HOLDOUT)
    selection = asked.selection_in_force.model_copy(update={"holdout": share})
    return question.model_copy(update={"selection": selection})


def _check_workers(session: Session, sweep: SweepRow) -> None:
    check_workers(
        BackendName(sweep.backend), workers.able(session), SweepSettings.model_validate(sweep.settings).device
    )
