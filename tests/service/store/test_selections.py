import pytest

from service.domain.errors import NotFound
from service.domain.selections import Selected, SelectionQuestion
from service.domain.states import IllegalMove, SelectionState, SweepState, UnitKind, UnitState
from service.store import selections, units
from service.store.endings import end_sweep
from service.store.subjects import lock_subject
from service.store.tables import SelectionRow, SweepRow, UnitRow

QUESTION = SelectionQuestion.model_validate({"budget": {"max_drop": 0.1}})


def answer(state: str = "predicted") -> Selected:
    document = {
        "state": state,
        "status": "met" if state == "verified" else "predicted_met",
        "algorithm": "optimal",
        "cost": 0.0,
        "max_drop": 0.1,
        "explanation": "",
    }
    empty = {"fallback": (), "fallback_names": (), "notes": (), "curve": ()}
    unknown = dict.fromkeys(("predicted", "measured", "upper_within", "decision"))
    return Selected.model_validate(document | empty | unknown)


def asked(database, sweep_id: str, state: str = "predicted") -> str:
    with database.write() as session:
        return selections.add(session, sweep_id, QUESTION, answer(state)).id


def queued(database, sweep_id: str) -> str:
    selection_id = asked(database, sweep_id)
    with database.write() as session:
        assert selections.verify(session, sweep_id, selection_id)[1] == "onnxruntime"
    return selection_id


def state_of(database, sweep_id: str, selection_id: str) -> SelectionState:
    with database.read() as session:
        return SelectionState(selections.get(session, sweep_id, selection_id).state)


def units_of(database, subject_id: str) -> list[UnitRow]:
    with database.read() as session:
        return units.units_of(session, subject_id, UnitKind.SELECT)


def test_only_a_prediction_is_measured_and_only_once(rows, database):
    sweep_id = rows.sweep()
    done, predicted = asked(database, sweep_id, "verified"), asked(database, sweep_id)
    with database.write() as session:
        assert selections.verify(session, sweep_id, done)[1] is None
        assert selections.verify(session, sweep_id, predicted)[1] == "onnxruntime"
        assert selections.verify(session, sweep_id, predicted)[1] is None
    assert units_of(database, done) == []
    (unit,) = units_of(database, predicted)
    assert (unit.state, unit.sweep_id, unit.queue) == (UnitState.QUEUED, sweep_id, "onnxruntime")
    assert state_of(database, sweep_id, done) is SelectionState.DONE
    assert state_of(database, sweep_id, predicted) is SelectionState.QUEUED


def test_a_lease_knows_whether_it_is_for_the_sweep_or_for_a_selection(rows, database):
    sweep_id = rows.sweep()
    selection_id = queued(database, sweep_id)
    with database.write() as session:
        leases = [units.claim(session, "onnxruntime", owner="w", lease_seconds=9) for _ in range(2)]
    assert [each.selection_id for each in leases if each is not None] == [None, selection_id]
    with database.write() as session:
        of_sweep, of_selection = (lock_subject(session, sweep_id, each.subject_id) for each in leases if each)
        assert of_sweep is not None
        assert of_selection is not None
        assert of_sweep.selection is None
        assert of_selection.selection is not None
        of_selection.fail(session, code="worker-lost", problem="gone")
        assert of_selection.ended
        assert not of_sweep.ended
        with pytest.raises(IllegalMove):
            of_selection.cancel(session)
        assert lock_subject(session, sweep_id, "sel_000000000000") is None
        assert lock_subject(session, "swp_000000000000", "swp_000000000000") is None


def test_the_end_of_a_sweep_ends_its_own_units_only(rows, database):
    sweep_id = rows.sweep()
    selection_id = queued(database, sweep_id)
    with database.write() as session:
        sweep = units.lock_sweep(session, sweep_id)
        assert sweep is not None
        end_sweep(session, sweep, SweepState.CANCELLED)
    assert [each.state for each in units_of(database, selection_id)] == [UnitState.QUEUED]
    with database.read() as session:
        assert session.query(UnitRow).filter_by(subject_id=sweep_id).one().state == UnitState.CANCELLED


def test_cancelling_waits_for_a_worker_that_holds_a_unit(rows, database):
    sweep_id = rows.sweep()
    selection_id = queued(database, sweep_id)
    with database.write() as session:
        session.query(UnitRow).filter_by(subject_id=selection_id).update({"state": UnitState.LEASED})
        row = selections.cancel(session, sweep_id, selection_id)
        assert (row.state, row.cancel_requested) == (SelectionState.QUEUED, True)
        session.query(UnitRow).filter_by(subject_id=selection_id).update({"state": UnitState.QUEUED})
        assert selections.cancel(session, sweep_id, selection_id).state == SelectionState.CANCELLED
    assert [each.state for each in units_of(database, selection_id)] == [UnitState.CANCELLED]


def test_a_selection_goes_with_its_work_and_both_with_their_sweep(rows, database):
    sweep_id = rows.sweep()
    first, second = queued(database, sweep_id), queued(database, sweep_id)
    with database.write() as session:
        selections.remove(session, sweep_id, first)
    assert units_of(database, first) == []
    assert len(units_of(database, second)) == 1
    with database.write() as session:
        session.query(SweepRow).filter_by(id=sweep_id).delete()
    with database.read() as session:
        assert session.query(SelectionRow).count() == 0
        assert session.query(UnitRow).filter(UnitRow.sweep_id.is_not(None)).count() == 0


@pytest.mark.parametrize("call", [selections.get, selections.verify, selections.cancel, selections.remove])
def test_what_is_not_there_is_named(rows, database, call):
    sweep_id, other = rows.sweep(), rows.sweep()
    selection_id = asked(database, other)
    for each in (selection_id, "sel_000000000000", "no\x00id"):
        with database.write() as session, pytest.raises(NotFound, match="has no selection"):
            call(session, sweep_id, each)
    with database.write() as session, pytest.raises(NotFound, match="there is no sweep"):
        call(session, "swp_000000000000", selection_id)
