from collections.abc import Callable
from itertools import pairwise

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, MetaData, func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from alembic import command
from service.domain.scheduling import Priority
from service.domain.states import UnitKind
from service.store import audit, projects
from service.store.database import Database, migrations_folder
from service.store.tables import ProjectRow, SelectionRow, SweepRow, Table, UnitRow
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

    def states() -> dict[str, str]:
        with database.read() as session:
            found = session.execute(text("SELECT id, state FROM selections"))
            return {str(row.id): str(row.state) for row in found}

    move_to(database, "0004")
    with database.write() as session:
        for state in ("verified", "predicted"):
            values = f"('{state}', '{sweep_id}', '{{}}', '{state}', '{{}}', 7.5)"
            columns = "(id, sweep_id, settings, state, result, created_at)"
            session.execute(text(f"INSERT INTO selections {columns} VALUES {values}"))
    move_to(database, "head")
    with database.write() as session:
        rows_ = {row.id: row for row in session.query(SelectionRow)}
        assert {each: (row.state, row.finished_at, row.round) for each, row in rows_.items()} == {
            "verified": ("done", 7.5, 0),
            "predicted": ("predicted", None, 0),
        }
        rows_["predicted"].state = "running"
        add_units(session, [NewUnit(UnitKind.SELECT, "predicted", "onnxruntime", sweep_id=sweep_id)])
    move_to(database, "0004")
    assert states() == {"verified": "verified", "predicted": "predicted"}
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM work_units WHERE subject_id = 'predicted'")) == 0
    move_to(database, "head")


def revisions() -> list[str]:
    """From the newest to the first."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    return [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]


def reflected(database: Database) -> MetaData:
    metadata = MetaData()
    metadata.reflect(database.engine)
    return metadata


def fill(database: Database) -> None:
    """A row in every table that has none, with something in every column, whatever the tables are."""
    metadata = reflected(database)
    values: dict[type, object] = {int: 1, float: 7.5, bool: True}
    said = {"selections.state": "predicted"}  # a word that older schemas know too
    with database.write() as session:
        for table in metadata.sorted_tables:
            if session.execute(select(func.count()).select_from(table)).scalar_one():
                continue
            row: dict[str, object] = {}
            for column in table.columns:
                (foreign,) = list(column.foreign_keys) or [None]
                if foreign is not None:
                    row[column.name] = session.scalar(select(foreign.column).limit(1))
                elif isinstance(column.type, JSON):
                    row[column.name] = {"kept": ["ü", 1.5, None]}
                elif column.type.python_type is str:
                    row[column.name] = said.get(str(column), str(column))
                else:
                    row[column.name] = values[column.type.python_type]
            session.execute(table.insert().values(**row))


def content(database: Database) -> dict[str, list[dict[str, object]]]:
    with database.read() as session:
        tables = reflected(database).sorted_tables
        found = {each.name: [dict(row) for row in session.execute(select(each)).mappings()] for each in tables}
    return {name: rows for name, rows in found.items() if name != "alembic_version"}


def step(database: Database, change: Callable[[Config, str], None], revision: str) -> None:
    with database._writer.connect() as connection:
        change(database.alembic_config(connection), revision)
        connection.commit()


def test_every_revision_goes_back_and_forward_with_a_row_in_every_table(database: Database):
    """What both schemas can hold is the same on both sides of each step, and after it was taken back and done again."""
    fill(database)
    steps = revisions()
    for newer, older in pairwise(steps):
        before = content(database)
        step(database, command.downgrade, older)
        back = content(database)
        step(database, command.upgrade, newer)
        again = content(database)
        lost = {name for name in back if len(back[name]) != len(before[name])}
        assert not lost, f"going back from {newer} lost rows of {lost}"
        for name, rows in back.items():
            for column in rows[0].keys() & before[name][0].keys():
                kept = [(each[name][0][column]) for each in (before, back, again)]
                assert kept == [kept[0]] * 3, f"{newer}: {name}.{column}"
        step(database, command.downgrade, older)


def test_units_learn_whose_they_are(database: Database, rows: Rows):
    sweep_id, model_id = rows.sweep(), rows.model("c")
    with database.write() as session:
        projects.create(session, ProjectRow(id="other"))
        session.get_one(SweepRow, sweep_id).project_id = "other"
    move_to(database, "0006")
    move_to(database, "head")
    with database.read() as session:
        found = {row.subject_id: (row.project_id, row.weight) for row in session.query(UnitRow)}
    assert found[sweep_id] == ("other", Priority.NORMAL.weight)
    assert found[model_id] == ("default", Priority.NORMAL.weight)
    with database.write() as session:
        session.get_one(SweepRow, sweep_id).project_id = "default"


def test_migrating_twice_changes_nothing(database: Database):
    database.migrate()
    database.ping()


def move_to(database: Database, revision: str) -> None:
    with database._writer.connect() as connection:
        change = command.upgrade if revision == "head" else command.downgrade
        change(database.alembic_config(connection), revision)
        connection.commit()


def test_everything_there_is_belongs_to_the_default_project_once_there_are_projects(database: Database, rows: Rows):
    sweep_id = rows.sweep(key="k")
    for revision in ("0004", "head"):
        move_to(database, revision)
    sweep = rows.get(sweep_id)
    assert (sweep.project_id, sweep.idempotency_key) == ("default", "k")
    with database.read() as session:
        assert session.query(UnitRow).filter_by(sweep_id=sweep_id).count() == 1
    if database.is_sqlite:  # what migrations switch off is on again
        with database.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_going_back_before_projects_is_refused_while_another_one_has_something(database: Database, rows: Rows):
    sweep_id = rows.sweep()
    with database.write() as session:
        projects.create(session, ProjectRow(id="other"))
        session.get_one(SweepRow, sweep_id).project_id = "other"
    with pytest.raises(RuntimeError, match="sweeps of other projects"):
        move_to(database, "0004")
    move_to(database, "head")


@pytest.mark.parametrize("change", ["update audit_log set outcome = 0", "delete from audit_log"])
def test_the_audit_log_is_append_only(database: Database, change: str):
    with database.write() as session:
        audit.add(session, audit.Deed("key_1", "default", "upload_model", "/v1/models", 201, "req_1"))
    with pytest.raises(DBAPIError, match="append only"), database.write() as session:
        session.execute(text(change))
