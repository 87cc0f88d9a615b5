"""Alembic's entry: runs on the connection that ``service.store.database.Database.migrate`` hands over."""

from alembic import context
from service.store.tables import Table

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
