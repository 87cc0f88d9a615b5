"""A sweep as its document shows it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from service.api.times import instant, instant_or_none
from service.domain.results import Decision
from service.domain.settings import BackendName, SweepSettings
from service.domain.states import Phase, SweepState
from service.store.progress import Progress
from service.store.tables import SweepRow


class ProgressView(BaseModel):
    """``fraction`` goes from 0 to 1; ``estimated`` while it is not known yet how much is to be verified."""

    fraction: float
    estimated: bool
    units_done: int
    units_total: int

    @classmethod
    def of(cls, progress: Progress) -> "ProgressView":
        """The view of what was computed."""
        return cls(
            fraction=progress.fraction,
            estimated=progress.estimated,
            units_done=progress.units_done,
            units_total=progress.units_total,
        )


class Message(BaseModel):
    """A warning or a problem: a stable code, and a sentence for people."""

    code: str
    message: str

    @classmethod
    def of_problem(cls, code: str | None, message: str | None, otherwise: str) -> "Message | None":
        """Why something failed; None where it did not."""
        return cls(code=code or otherwise, message=message) if message else None


class Links(BaseModel):
    """Where the rest of a sweep is."""

    self: str
    layers: str
    report_json: str
    report_html: str
    fallback_layers: str
    artifacts: str
    cancel: str

    @classmethod
    def of(cls, sweep_id: str) -> "Links":
        """The links of one sweep."""
        base = f"/v1/sweeps/{sweep_id}"
        return cls(
            self=base,
            layers=f"{base}/layers",
            report_json=f"{base}/report.json",
            report_html=f"{base}/report.html",
            fallback_layers=f"{base}/fallback-layers",
            artifacts=f"{base}/artifacts",
            cancel=f"{base}/cancel",
        )


class SweepView(BaseModel):
    """A sweep. ``settings`` as asked for, ``backend`` the one in force; ``environment``: host, device, versions.

    ``eta_seconds`` is null until there is a measured rate. ``decision`` is null until it stands.
    """

    id: str
    state: SweepState
    phase: Phase
    progress: ProgressView
    eta_seconds: float | None
    cancel_requested: bool
    problem: Message | None
    warnings: list[Message]
    model: str
    dataset: str
    backend: BackendName
    settings: SweepSettings
    environment: dict[str, Any]
    decision: Decision | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: Links

    @classmethod
    def of(cls, row: SweepRow, progress: Progress) -> "SweepView":
        """The view of a stored row."""
        problem = Message.of_problem(row.problem_code, row.problem, "sweep-failed")
        return cls(
            id=row.id,
            state=SweepState(row.state),
            phase=Phase(row.phase),
            progress=ProgressView.of(progress),
            eta_seconds=progress.eta_seconds,
            cancel_requested=row.cancel_requested,
            problem=problem,
            warnings=[Message.model_validate(each) for each in row.warnings],
            model=row.model_id,
            dataset=row.dataset_id,
            backend=BackendName(row.backend),
            settings=SweepSettings.model_validate(row.settings),
            environment=row.environment,
            decision=Decision.model_validate(row.decision) if row.decision else None,
            created_at=instant(row.created_at),
            started_at=instant_or_none(row.started_at),
            finished_at=instant_or_none(row.finished_at),
            links=Links.of(row.id),
        )


class SweepList(BaseModel):
    """One page of sweeps, newest first."""

    items: list[SweepView]
    next_cursor: str | None


def entity_tag(revision: int, view: SweepView) -> str:
    """Changes with the row and with its progress; weak, since the time that is left is not part of it."""
    return f'W/"{revision}-{view.progress.units_done}-{view.progress.fraction}"'


def tag_matches(if_none_match: str | None, tag: str) -> bool:
    """Whether the caller has this version already (RFC 9110, weak comparison)."""
    if if_none_match is None:
        return False
    known = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return "*" in known or tag.removeprefix("W/") in known
