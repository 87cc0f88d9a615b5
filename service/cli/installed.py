"""The installation's database, as commands that work in it open it."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from service.domain.errors import InvalidInput, first_line
from service.settings import Settings
from service.store.database import Database


@contextmanager
def opened_database(settings: Settings) -> Iterator[Database]:
    """The database as long as the block lasts; raises InvalidInput, which names its setting, where it fails."""
    database = Database(settings.resolved_database_url)
    try:
        yield database
    except SQLAlchemyError as error:
        raise InvalidInput(f"database_url: {first_line(error)}", field="database_url") from None
    finally:
        database.close()
