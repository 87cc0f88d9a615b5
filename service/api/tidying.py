"""What the API puts in order at its start, and after a deletion: what it speaks, and files that nothing names."""

import logging

from sqlalchemy.exc import SQLAlchemyError

from service.api.deps import Services
from service.store import installation
from service.store.blobs import StorageUnavailable
from service.store.leftovers import remove_leftovers

log = logging.getLogger(__name__)


def announce(services: Services) -> None:
    """Say in the database what this API speaks, so that workers of another release are refused."""
    try:
        with services.database.write() as session:
            installation.announce(session)
    except SQLAlchemyError as error:
        log.warning("the database does not know yet what this API speaks: %s", error)


def tidy(services: Services) -> None:
    """Remove what is left over; whatever does not answer is met again the next time."""
    try:
        remove_leftovers(services.database, services.blobs)
    except (SQLAlchemyError, StorageUnavailable) as error:
        log.warning("leftovers stay for now: %s", error)
