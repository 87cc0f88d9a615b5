"""Triggers in the database that note every move that no row may make: out of a terminal state."""

from sqlalchemy import text

from service.store.database import Database

WATCHED = {
    "sweeps": "old.state in ('succeeded', 'failed', 'cancelled') and new.state <> old.state",
    "models": "old.state in ('ready', 'rejected') and new.state <> old.state",
    "datasets": "old.state in ('ready', 'rejected') and new.state <> old.state",
    # neither may the result of a unit change
    "work_units": (
        "old.state in ('done', 'failed', 'cancelled') and "
        "(new.state <> old.state or new.token <> old.token or new.result_sha256 is distinct from old.result_sha256)"
    ),
}
NOTE = "insert into chaos_moves values ('{table}', old.id, old.state, new.state)"
SQLITE = "create trigger chaos_{table} after update on {table} when {condition} begin {note}; end"
POSTGRESQL_FUNCTION = (
    "create function chaos_{table}() returns trigger language plpgsql as $$ begin {note}; return null; end $$"
)
POSTGRESQL = (
    "create trigger chaos_{table} after update on {table} for each row when ({condition}) "
    "execute function chaos_{table}()"
)


def install(database: Database) -> None:
    """Begin to note."""
    with database.write() as session:
        session.execute(text("create table chaos_moves (noun text, id text, was text, became text)"))
        for table, condition in WATCHED.items():
            made = {"table": table, "condition": condition, "note": NOTE.format(table=table)}
            for statement in (SQLITE,) if database.is_sqlite else (POSTGRESQL_FUNCTION, POSTGRESQL):
                session.execute(text(statement.format(**made)))


def moves(database: Database) -> list[str]:
    """What was noted, as sentences."""
    with database.read() as session:
        rows = session.execute(text("select noun, id, was, became from chaos_moves")).all()
    return [f"{noun} {id_} went from {was} to {became}" for noun, id_, was, became in rows]
