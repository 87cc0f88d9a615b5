"""The command ``quantsieve`` and its commands."""

import logging
import os
import sys
from typing import Annotated

import typer

from service import __version__
from service.cli import keys, sweep
from service.cli.convert import convert
from service.cli.doctor import doctor
from service.cli.gc import gc
from service.cli.gpu_workers import GpuWorkers, gpus_of
from service.cli.lint_qdq import lint_qdq
from service.cli.problems import Commands, read_settings
from service.cli.run import run
from service.cli.serve import api, serve
from service.embedded.server import worker_environment
from service.logs import log_to_stderr

app = typer.Typer(
    name="quantsieve",
    cls=Commands,
    help="Finds the layers of a network that cannot stand INT8, and proves which few to keep in higher precision.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(api)
app.command()(run)
app.add_typer(sweep.app, name="sweep")
app.add_typer(keys.app, name="keys")
app.command()(convert)
app.command()(lint_qdq)
app.command()(doctor)
app.command()(gc)


@app.command()
def worker(
    *,
    queues: Annotated[str | None, typer.Option(help="Serve only these queues, comma separated.")] = None,
    gpus: Annotated[str | None, typer.Option(help="A worker for each GPU: all, or a list such as 0,1.")] = None,
) -> None:
    """Run a worker of the installation that QUANTSIEVE_DATABASE_URL and QUANTSIEVE_BROKER_URL name."""
    command = [sys.executable, "-P", "-m", "workers.main", *(["--queues", queues] if queues else [])]
    settings = read_settings()
    environment = worker_environment(settings)
    if gpus is not None:
        log_to_stderr(settings.log_format, logging.INFO)
        GpuWorkers(command, gpus_of(gpus), environment).run()
        return
    # replaced, not started: signals and the exit status are the worker's own
    os.execve(sys.executable, command, environment)


@app.callback(invoke_without_command=True)
def root(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version, and end.", is_eager=True)] = False
) -> None:
    """Handle the options of the command itself."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app()
