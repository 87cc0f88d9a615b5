"""What follows when a unit of a selection is done; its sweep stays as it is."""

from dataclasses import replace

from sqlalchemy.orm import Session

from service.domain.states import SelectionState, UnitKind, move_selection
from service.store import selections
from service.store.clock import now
from service.store.tables import SelectionRow, SweepRow
from service.store.units import NewUnit, add_units
from workers.sweep.outcome import Chosen, Measured, NextRound, Outcome
from workers.sweep.transitions import still_open, verify_units


def advance_selection(session: Session, sweep: SweepRow, selection: SelectionRow, outcome: Outcome) -> int:
    """Write what the unit found into the (locked) selection and queue what follows; how many units were queued."""
    match outcome:
        case Measured():
            if still_open(session, selection.id, UnitKind.VERIFY):
                return 0
            return _queue(session, sweep, selection, [NewUnit(UnitKind.SELECT, selection.id, sweep.queue)])
        case NextRound():
            _start(selection)
            selection.round += 1
            return _queue(session, sweep, selection, verify_units(sweep, outcome, round_=selection.round))
        case Chosen():
            _start(selection)
            selection.result = outcome.answer.model_dump(mode="json")
            selections.end(session, selection, SelectionState.DONE)
            return 0
        case _:
            raise AssertionError(f"a selection has no unit that ends with {type(outcome).__name__}")


def _start(selection: SelectionRow) -> None:
    if selection.state == SelectionState.QUEUED:
        selection.state = move_selection(SelectionState.QUEUED, SelectionState.RUNNING)
        selection.started_at = now()


def _queue(session: Session, sweep: SweepRow, selection: SelectionRow, new: list[NewUnit]) -> int:
    own = [replace(each, subject_id=selection.id, sweep_id=sweep.id, round=selection.round) for each in new]
    add_units(session, own)
    return len(own)
