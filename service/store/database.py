"""Connections and transactions, the same on SQLite and PostgreSQL; and the migrations that build the schema."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session

from alembic import command
from service.domain.errors import InvalidInput, first_line
from service.domain.tenant import Tenant
from service.store.tenancy import open_session

AWAY = (OperationalError, InterfaceError, NoConnection)
"""What a database that does not answer raises; the last: all of the pool's connections are in use for too long."""
SQLITE_BUSY_MS = 30_000
POSTGRESQL_DISK_FULL = "53100"
IDLE_IN_TRANSACTION_MS = 30_000
"""No transaction of ours waits for anything but the database: a client that is silent for so long is gone."""
# so that neither side waits for hours for a machine that went away without a word (seconds; the last in milliseconds)
POSTGRESQL_LINE = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def migrations_folder() -> Path:
    """Where the migrations lie: inside the installed package, or at the top of a checkout."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "alembic"


class Database:
    """One database. ``read()`` and ``write()`` each open a session in one transaction."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        elif parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.url = parsed
        arguments: dict[str, Any] = {"timeout": SQLITE_BUSY_MS / 1000} if self.is_sqlite else {}
        if not self.is_sqlite:
            arguments = {name: value for name, value in POSTGRESQL_LINE.items() if name not in parsed.query}
        self.engine = create_engine(parsed, connect_args=arguments, pool_pre_ping=not self.is_sqlite)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "connect", _configure_postgresql)
        self._writer = self.engine.execution_options(quantsieve_write=True)

    @contextmanager
    def read(self, tenant: Tenant | None = None) -> Iterator[Session]:
        """A session for reading; nothing of it is kept. With a tenant it sees the rows of that project alone."""
        with open_session(self.engine, tenant) as session:
            yield session

    @contextmanager
    def write(self, tenant: Tenant | None = None) -> Iterator[Session]:
        """A session in a writing transaction, committed at the end and rolled back on any error."""
        with open_session(self._writer, tenant) as session, session.begin():
            yield session

    def of(self, tenant: Tenant) -> "ProjectDatabase":
        """The database as a project sees it."""
        return ProjectDatabase(self, tenant)

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema to ``revision``; raises InvalidInput where a newer release brought it further."""
        with self._writer.connect() as connection:
            try:
                command.upgrade(self.alembic_config(connection), revision)
            except CommandError as error:
                reason = f"version skew detected and refused: {first_line(error)}"
                message = f"database_url: {reason}; the database was brought further by a newer release: run that one"
                raise InvalidInput(message, field="database_url", code="version-skew") from error
            connection.commit()

    def alembic_config(self, connection: Connection) -> Config:
        """Alembic's configuration, bound to an open connection."""
        config = Config()
        config.set_main_option("script_location", str(migrations_folder()))
        config.attributes["connection"] = connection
        return config

    def ping(self) -> None:
        """Raise the driver's error where the database does not answer."""
        with self.engine.connect() as connection:
            connection.execute(text("select 1"))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


@dataclass(frozen=True)
class ProjectDatabase:
    """A database of which one project's rows are seen, as if there were no other project."""

    _whole: Database = field(repr=False)
    tenant: Tenant

    def read(self) -> AbstractContextManager[Session]:
        """A session for reading."""
        return self._whole.read(self.tenant)

    def write(self) -> AbstractContextManager[Session]:
        """A session in a writing transaction; what it adds belongs to the project."""
        return self._whole.write(self.tenant)


def out_of_space(error: DBAPIError) -> bool:
    """Whether the database failed because its disk is full."""
    full = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return full or getattr(error.orig, "sqlstate", None) == POSTGRESQL_DISK_FULL


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # the driver must not begin transactions by itself: _begin_sqlite does, and says IMMEDIATE where we write
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={SQLITE_BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _configure_postgresql(connection: Any, _record: Any) -> None:
    # or what a worker that lost its power had locked would stay locked for as long as TCP keeps the connection
    with connection.cursor() as cursor:
        cursor.execute(f"set idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("quantsieve_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
