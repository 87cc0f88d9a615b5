"""A selection as its document shows it."""

from datetime import datetime

from pydantic import BaseModel

from service.api.sweep_views import Message, ProgressView
from service.api.times import instant, instant_or_none
from service.domain.selections import Selected, SelectionQuestion
from service.domain.states import SelectionState
from service.store.progress import Progress
from service.store.tables import SelectionRow


class SelectionLinks(BaseModel):
    """Where the rest of a selection is."""

    self: str
    sweep: str
    verify: str
    cancel: str

    @classmethod
    def of(cls, row: SelectionRow) -> "SelectionLinks":
        """The links of one selection."""
        sweep = f"/v1/sweeps/{row.sweep_id}"
        base = f"{sweep}/selections/{row.id}"
        return cls(self=base, sweep=sweep, verify=f"{base}/verify", cancel=f"{base}/cancel")


class SelectionView(BaseModel):
    """A selection: what was asked, with the algorithm and the held-out share in force, and the answer.

    ``result.state`` verified: by lists that were measured; predicted: an estimate, which stands while lists are
    measured, and where that failed or was cancelled. ``progress`` and ``eta_seconds``: of that measuring. The
    confidence of a decision is that of one question; of the best of many it is less.
    """

    id: str
    sweep: str
    state: SelectionState
    question: SelectionQuestion
    result: Selected
    progress: ProgressView | None
    eta_seconds: float | None
    cancel_requested: bool
    problem: Message | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: SelectionLinks

    @classmethod
    def of(cls, row: SelectionRow, progress: Progress | None) -> "SelectionView":
        """The view of a stored row."""
        problem = Message.of_problem(row.problem_code, row.problem, "selection-failed")
        return cls(
            id=row.id,
            sweep=row.sweep_id,
            state=SelectionState(row.state),
            question=SelectionQuestion.model_validate(row.settings),
            result=Selected.model_validate(row.result),
            progress=ProgressView.of(progress) if progress is not None else None,
            eta_seconds=progress.eta_seconds if progress is not None else None,
            cancel_requested=row.cancel_requested,
            problem=problem,
            created_at=instant(row.created_at),
            started_at=instant_or_none(row.started_at),
            finished_at=instant_or_none(row.finished_at),
            links=SelectionLinks.of(row),
        )
