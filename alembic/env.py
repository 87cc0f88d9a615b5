"""Alembic's entry: runs on the connection that ``service.store.database.Database.migrate`` hands over."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from alembic import context
from service.store.tables import Table


@contextmanager
def foreign_keys_off(connection: Connection) -> Iterator[None]:
    """Let SQLite make tables anew without dropping the rows that refer to the old ones; what results is checked."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA foreign_keys=OFF")  # inside a transaction it would do nothing
    if driver.execute("PRAGMA foreign_keys").fetchone() != (0,):
        raise RuntimeError("migrations of SQLite begin outside of any transaction")
    try:
        yield
        broken = driver.execute("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise RuntimeError(f"the migration would leave rows that refer to nothing: {broken[:5]}")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


connection = context.config.attributes["connection"]
with foreign_keys_off(connection):
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
