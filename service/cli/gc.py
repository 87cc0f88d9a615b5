"""``quantsieve gc``: delete what is kept no longer and what is left over, now; a worker does so every hour."""

from typing import Annotated

import typer

from service.cli.installed import opened_database
from service.cli.problems import read_settings
from service.domain.errors import InvalidInput
from service.settings import Settings
from service.store import installation, leftovers, retention
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
    with opened_database(settings) as database:
        # a release that does not know all tables does not know all files that are named
        if (refused := installation.refusal(database)) is not None:
            raise InvalidInput(refused, field="database_url", code="version-skew")
        (_show if dry_run else _collect)(settings, database, open_blobs(settings))


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
