"""What a unit of a sweep works for: the sweep itself, or a selection that was asked of it."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.domain.states import SelectionState, SweepState
from service.store import selections
from service.store.endings import end_sweep
from service.store.tables import SelectionRow, SweepRow
from service.store.units import lock_sweep


@dataclass(frozen=True)
class Subject:
    """Locked until the transaction ends. ``selection`` None: it is the sweep."""

    sweep: SweepRow
    selection: SelectionRow | None

    @property
    def ended(self) -> bool:
        """Whether no result is taken any more."""
        if self.selection is not None:
            return SelectionState(self.selection.state).terminal
        return SweepState(self.sweep.state).terminal

    @property
    def cancel_requested(self) -> bool:
        """Whether the caller cancelled it."""
        return (self.selection or self.sweep).cancel_requested

    def fail(self, session: Session, *, code: str, problem: str) -> None:
        """End it as failed; raises IllegalMove where it has ended."""
        if self.selection is not None:
            selections.end(session, self.selection, SelectionState.FAILED, code=code, problem=problem)
        else:
            end_sweep(session, self.sweep, SweepState.FAILED, code=code, problem=problem)

    def cancel(self, session: Session) -> None:
        """End it as cancelled; raises IllegalMove where it has ended."""
        if self.selection is not None:
            selections.end(session, self.selection, SelectionState.CANCELLED)
        else:
            end_sweep(session, self.sweep, SweepState.CANCELLED)


def lock_open_subject(session: Session, sweep_id: str | None, subject_id: str) -> Subject | None:
    """As ``lock_subject``; None too where it has ended, or is no sweep and no selection."""
    subject = lock_subject(session, sweep_id, subject_id) if sweep_id is not None else None
    return None if subject is None or subject.ended else subject


def lock_subject(session: Session, sweep_id: str, subject_id: str) -> Subject | None:
    """The sweep, or the selection of it, with this id; None where it was deleted."""
    sweep = lock_sweep(session, sweep_id)
    if sweep is None or subject_id == sweep_id:
        return None if sweep is None else Subject(sweep, None)
    selection = selections.lock(session, subject_id)
    return None if selection is None else Subject(sweep, selection)
