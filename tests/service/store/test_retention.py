import pytest

from service.domain.states import SelectionState, SweepState
from service.store import retention
from service.store.database import Database
from service.store.tables import AuditRow, SelectionRow, SweepRow, UnitRow
from tests.service.store.conftest import Rows

DAY = 86_400


def ended(database: Database, sweep_id: str, *, days: float, state: SweepState = SweepState.SUCCEEDED) -> str:
    with database.write() as session:
        row = session.get_one(SweepRow, sweep_id)
        row.state, row.finished_at = state, row.created_at - days * DAY
    return sweep_id


def left(database: Database) -> set[str]:
    with database.read() as session:
        return {row.id for row in session.query(SweepRow)}


def test_what_ended_long_ago_goes_with_its_units_and_nothing_else_does(database: Database, rows: Rows):
    old = ended(database, rows.sweep(), days=8, state=SweepState.FAILED)
    recent, running = ended(database, rows.sweep(), days=6), rows.sweep()
    with database.read() as session:
        assert retention.outlived(session, 7) == [old]
    assert left(database) == {old, recent, running}
    assert retention.remove_outlived(database, 7) == [old]
    assert left(database) == {recent, running}
    with database.read() as session:
        assert session.query(UnitRow).filter_by(sweep_id=old).count() == 0
        (deed,) = session.query(AuditRow)
    assert (deed.key_id, deed.project_id, deed.action, deed.object) == (
        "retention",
        "default",
        "delete_sweep",
        f"/v1/sweeps/{old}",
    )
    assert retention.remove_outlived(database, 7) == []


@pytest.mark.parametrize(("state", "stays"), [(SelectionState.RUNNING, True), (SelectionState.DONE, False)])
def test_a_sweep_stays_while_a_selection_is_measured_from_it(
    database: Database, rows: Rows, state: SelectionState, stays: bool
):
    old = ended(database, rows.sweep(), days=8)
    with database.write() as session:
        session.add(SelectionRow(id="sel_1", sweep_id=old, settings={}, state=state, result={}, created_at=0.0))
    assert retention.remove_outlived(database, 7) == ([] if stays else [old])
