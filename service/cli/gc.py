"""``quantsieve gc``: delete what is kept no longer and what is left over, now; a worker does so every hour."""

from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from service.cli.problems import read_settings
from service.domain.errors import InvalidInput, first_line
from service.settings import Settings
from service.store import leftovers, retention
from service.store.blobs import BlobStore
from service.store.database import Database
from service.store.open_blobs import open_blobs


def gc(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete sweeps that ended longer ago than QUANTSIEVE_RETENTION_DAYS, and files that nothing names any more.

    Files of the last hour stay: one that comes in now is named only when it is whole.
    """
    settings = read_settings()
    database, blobs = Database(settings.resolved_database_url), open_blobs(settings)
    try:
        (_show if dry_run else _collect)(settings, database, blobs)
    except SQLAlchemyError as error:
        raise InvalidInput(f"database_url: {first_line(error)}", field="database_url") from None
    finally:
        database.close()


def _show(settings: Settings, database: Database, blobs: BlobStore) -> None:
    """The files of the sweeps are not among the files: something else may name them too."""
    if settings.retention_days is not None:
        with database.read() as session:
            for sweep_id in retention.outlived(session, settings.retention_days):
                typer.echo(f"sweep {sweep_id}")
    for sha256 in leftovers.leftovers(database, blobs):
        typer.echo(f"file {sha256}")


def _collect(settings: Settings, database: Database, blobs: BlobStore) -> None:
    days = settings.retention_days
    removed = retention.remove_outlived(database, days) if days is not None else []
    files = leftovers.remove_leftovers(database, blobs)
    typer.echo(f"deleted {len(removed)} sweeps and {files} files")
