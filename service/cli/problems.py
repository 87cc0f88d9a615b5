"""Errors as one clear line, and the exit status that goes with them."""

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from service.client import ApiProblem
from service.domain.errors import QuantsieveError
from service.settings import Settings

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
PIPE_WIDTH = 120
SECRET = frozenset({"key_pepper"})
"""Settings whose values are never shown."""


def stderr() -> Console:
    """Where errors and progress go, so that standard output holds results only."""
    return Console(stderr=True, soft_wrap=True)


def stdout() -> Console:
    """Where results go. A pipe has no width of its own: it gets one that needs little wrapping."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def say_error(message: str) -> None:
    """Print an error; the message may hold text from anywhere, so nothing in it is markup."""
    stderr().print(Text.assemble(("error: ", "bold red"), message))


def read_settings() -> Settings:
    """The settings from the environment; a wrong one ends the command with its name, value and what is right."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    field = str(first["loc"][0])
    shown = "what it holds" if field in SECRET else repr(first["input"])
    say_error(f"QUANTSIEVE_{field.upper()}: {shown} is wrong: {first['msg']}")
    raise typer.Exit(EXIT_USAGE)


class Commands(TyperGroup):
    """A group of commands whose expected errors are one line and exit status 2."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (QuantsieveError, ApiProblem) as error:
            say_error(str(error))
            raise typer.Exit(EXIT_USAGE) from None
