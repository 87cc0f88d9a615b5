from collections.abc import Callable

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from alembic import command
from service.domain.states import UnitKind
from service.store.database import Database
from service.store.tables import SelectionRow, SweepRow, Table, UnitRow
from service.store.units import NewUnit, add_units
from tests.service.store.conftest import Rows


def test_the_migrations_build_what_the_tables_say(database: Database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_up_down_and_up_again(database: Database):
    with database._writer.connect() as connection:
        command.downgrade(database.alembic_config(connection), "base")
        connection.commit()
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}

    database.migrate()
    assert set(inspect(database.engine).get_table_names()) >= set(Table.metadata.tables)


def test_a_sweep_keeps_its_rows_when_it_learns_of_caches_and_when_it_forgets_them(database: Database, rows: Rows):
    sweep_id = rows.sweep()
    with database.read() as session:
        before = [row.id for row in session.query(UnitRow).order_by(UnitRow.id)]
    for move in ("0002", "head"):
        with database._writer.connect() as connection:
            change = command.downgrade if move == "0002" else command.upgrade
            change(database.alembic_config(connection), move)
            connection.commit()
    assert rows.get(sweep_id).cache_id is None
    with database.read() as session:
        assert [row.id for row in session.query(UnitRow).order_by(UnitRow.id)] == before


def test_a_sweep_keeps_its_rows_when_decisions_learn_to_keep_their_evidence(database: Database, rows: Rows):
    sweep_id = rows.sweep()
    with database.read() as session:
        before = [row.id for row in session.query(UnitRow).order_by(UnitRow.id)]
    for move in ("0003", "head"):
        with database._writer.connect() as connection:
            change = command.downgrade if move == "0003" else command.upgrade
            change(database.alembic_config(connection), move)
            connection.commit()
    with database.read() as session:
        assert session.get_one(SweepRow, sweep_id).evidence is None
        assert [row.id for row in session.query(UnitRow).order_by(UnitRow.id)] == before


def test_selections_keep_their_answers_when_they_learn_to_be_measured_and_when_they_forget(
    database: Database, rows: Rows
):
    sweep_id = rows.sweep()

    def move(change: Callable[..., None], revision: str) -> None:
        with database._writer.connect() as connection:
            change(database.alembic_config(connection), revision)
            connection.commit()

    def states() -> dict[str, str]:
        with database.read() as session:
            found = session.execute(text("SELECT id, state FROM selections"))
            return {str(row.id): str(row.state) for row in found}

    move(command.downgrade, "0004")
    with database.write() as session:
        for state in ("verified", "predicted"):
            values = f"('{state}', '{sweep_id}', '{{}}', '{state}', '{{}}', 7.5)"
            columns = "(id, sweep_id, settings, state, result, created_at)"
            session.execute(text(f"INSERT INTO selections {columns} VALUES {values}"))
    move(command.upgrade, "head")
    with database.write() as session:
        rows_ = {row.id: row for row in session.query(SelectionRow)}
        assert {each: (row.state, row.finished_at, row.round) for each, row in rows_.items()} == {
            "verified": ("done", 7.5, 0),
            "predicted": ("predicted", None, 0),
        }
        rows_["predicted"].state = "running"
        add_units(session, [NewUnit(UnitKind.SELECT, "predicted", "onnxruntime", sweep_id=sweep_id)])
    move(command.downgrade, "0004")
    assert states() == {"verified": "verified", "predicted": "predicted"}
    with database.read() as session:
        assert session.query(UnitRow).filter_by(subject_id="predicted").count() == 0
    move(command.upgrade, "head")


def test_migrating_twice_changes_nothing(database: Database):
    database.migrate()
    database.ping()
