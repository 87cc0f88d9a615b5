from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from alembic import command
from service.store.database import Database
from service.store.tables import SweepRow, Table, UnitRow
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


def test_migrating_twice_changes_nothing(database: Database):
    database.migrate()
    database.ping()
