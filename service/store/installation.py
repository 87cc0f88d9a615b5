"""What the database says of the installation as a whole: its schema, the API's protocol, its last collection."""

from functools import cache
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import CursorResult, column, select, table, update
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from service import __version__
from service.domain.protocol import PROTOCOL, Spoken, skew
from service.store.clock import now
from service.store.database import Database, migrations_folder
from service.store.tables import InstallationRow

_SCHEMA = table("alembic_version", column("version_num"))


@cache
def code_speaks() -> Spoken:
    """What this code is for: the newest revision among its migrations, and its protocol."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    return Spoken(ScriptDirectory.from_config(config).get_current_head(), PROTOCOL)


def installed(session: Session) -> Spoken:
    """What the database is at and the API speaks, by one statement; raises SQLAlchemyError where there is no schema."""
    protocol = select(InstallationRow.protocol).limit(1).scalar_subquery()
    row = session.execute(select(_SCHEMA.c.version_num, protocol)).one()
    return Spoken(row[0], row[1])


def refusal(database: Database) -> str | None:
    """Why this code may not work on this database, which has to have some schema; None where it may."""
    with database.read() as session:
        try:
            spoken = installed(session)
        except (ProgrammingError, OperationalError):  # a schema of long ago, which has no such table
            session.rollback()
            spoken = Spoken(session.scalar(select(_SCHEMA.c.version_num)), None)
    return skew(code_speaks(), spoken)


def announce(session: Session) -> None:
    """Note what the API speaks; workers that speak something else are refused from here on."""
    session.execute(update(InstallationRow).values(version=__version__, protocol=PROTOCOL))


def take_collection(session: Session, *, every: float) -> bool:
    """Whether it is the caller's turn to collect garbage: True for one of all who ask within ``every`` seconds."""
    due = InstallationRow.collected_at < now() - every
    changed: Any = session.execute(update(InstallationRow).where(due).values(collected_at=now()))
    assert isinstance(changed, CursorResult)
    return changed.rowcount == 1
