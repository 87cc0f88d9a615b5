"""``quantsieve keys``: create, list and revoke, straight in the database: the first key can be made in no other way."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.cli.installed import opened_database
from service.cli.problems import Commands, read_settings, stderr, stdout
from service.domain.api_keys import KeyScope
from service.domain.errors import InvalidInput
from service.settings import Settings
from service.store import audit, keys
from service.store.identifiers import Prefix, new_id
from service.store.keys import NewKey, Pepper
from service.store.retention import DAY_SECONDS
from service.store.tables import DEFAULT_PROJECT, KeyRow

ACTOR = "command-line"

app = typer.Typer(cls=Commands, no_args_is_help=True, help="The API keys of the installation that the settings name.")


@app.command()
def create(
    *,
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[list[KeyScope], typer.Option(help="What it may do; repeatable.")],
    project: Annotated[str, typer.Option(help="Whose rows it sees.")] = DEFAULT_PROJECT,
    expires_days: Annotated[
        float | None, typer.Option(help="How long it lives.  [default: it does not expire]")
    ] = None,
) -> None:
    """Make a key and print it: it is stored nowhere, and nobody can print it again."""
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise InvalidInput(f"--name: {name!r} is wrong; give 1 to 200 printable characters", field="--name")
    if expires_days is not None and not 0 < expires_days <= 36_500:
        raise InvalidInput(f"--expires-days: {expires_days:g} is wrong; give more than 0", field="--expires-days")
    settings = read_settings()
    new = NewKey(name, scope, project, None if expires_days is None else expires_days * DAY_SECONDS)
    with _writing(settings) as session:
        row, key = keys.create(session, new, Pepper.of(settings))
        _record(session, "create_key", row, 201)
    stderr().print(Text(f"{row.id} of project {row.project_id}: {', '.join(row.scopes)}. Keep it now:"))
    typer.echo(key.text)


@app.command("list")
def list_keys() -> None:
    """Print all keys, without their texts."""
    with _writing(read_settings()) as session:
        rows = list(session.scalars(select(KeyRow).order_by(KeyRow.created_at, KeyRow.id)))
    table = Table(box=None, pad_edge=False)
    for column in ("id", "project", "scopes", "name", "created", "expires", "last used", "revoked"):
        table.add_column(column)
    for row in rows:
        times = (row.created_at, row.expires_at, row.last_used_at, row.revoked_at)
        words = (row.id, row.project_id, ", ".join(row.scopes), row.name, *map(_day, times))
        table.add_row(*map(Text, words))
    stdout().print(table)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its id, such as key_4q8c1z0rk2vx.")]) -> None:
    """Revoke a key, at once and for good."""
    with _writing(read_settings()) as session:
        row = keys.revoke(session, key_id)
        _record(session, "revoke_key", row, 200)
    typer.echo(f"{row.id} is revoked")


@contextmanager
def _writing(settings: Settings) -> Iterator[Session]:
    with opened_database(settings) as database:
        database.migrate()
        with database.write() as session:
            yield session


def _record(session: Session, action: str, row: KeyRow, outcome: int) -> None:
    made = f"/v1/keys/{row.id}"
    audit.add(session, audit.Deed(ACTOR, row.project_id, action, made, outcome, new_id(Prefix.REQUEST)))


def _day(seconds: float | None) -> str:
    return "–" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
