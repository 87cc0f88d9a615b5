"""Removes files that nothing names, where the service comes by: at its start, and after a deletion."""

import logging

from sqlalchemy.exc import SQLAlchemyError

from service.api.deps import Services
from service.store.blobs import StorageUnavailable
from service.store.leftovers import remove_leftovers

log = logging.getLogger(__name__)


def tidy(services: Services) -> None:
    """Remove what is left over; whatever does not answer is met again the next time."""
    try:
        remove_leftovers(services.database, services.blobs)
    except (SQLAlchemyError, StorageUnavailable) as error:
        log.warning("leftovers stay for now: %s", error)
