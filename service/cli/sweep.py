"""``quantsieve sweep``: submit, select, status, wait, cancel, report."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from service.cli.connection import existing_server
from service.cli.flow import Order, check_order, follow, say_warnings, show_results, submit, write_reports
from service.cli.options import SweepOptions, takes_sweep_options
from service.cli.problems import Commands, read_settings, stdout
from service.cli.run import DataArgument, ModelArgument, UrlOption
from service.cli.select import select
from service.cli.status import SweepStatus, time_left

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Submit sweeps to a running server, and follow them.")

SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="The sweep's id, such as swp_4q8c1z0rk2vx.")]


@app.command("submit")
@takes_sweep_options
def submit_sweep(options: SweepOptions, *, model: ModelArgument, data: DataArgument, url: UrlOption = None) -> None:
    """Upload and create a sweep; print its id and do not wait."""
    order = Order(model, data, options)
    check_order(order)
    with existing_server(url, read_settings()) as connection:
        sweep = submit(connection, order)
    say_warnings(sweep)
    typer.echo(sweep.id)


app.command()(select)


@app.command()
def status(sweep_id: SweepArgument, *, url: UrlOption = None) -> None:
    """Print where a sweep stands."""
    with existing_server(url, read_settings()) as connection:
        sweep = SweepStatus.of(connection.client.sweep(sweep_id))
    line = f"{sweep.id}  {sweep.stage}  {sweep.fraction:.0%}  {time_left(sweep.eta_seconds)}"
    console = stdout()
    console.print(Text(line.rstrip()))
    if sweep.problem:
        console.print(Text(sweep.problem, "red"))


@app.command()
def wait(sweep_id: SweepArgument, *, url: UrlOption = None) -> None:
    """Show progress until a sweep has ended, then its table and decision; exit status 1 where it failed."""
    with existing_server(url, read_settings()) as connection:
        ended = follow(connection, sweep_id)
        if ended == 0:
            show_results(connection, sweep_id)
    raise typer.Exit(ended)


@app.command()
def cancel(sweep_id: SweepArgument, *, url: UrlOption = None) -> None:
    """Cancel a sweep."""
    with existing_server(url, read_settings()) as connection:
        sweep = SweepStatus.of(connection.client.cancel(sweep_id))
    ended = sweep.state.terminal
    typer.echo(f"sweep {sweep_id} is {sweep.state.value if ended else 'being cancelled'}")


@app.command()
def report(
    sweep_id: SweepArgument,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the report files.")] = Path("quantsieve-out"),
    url: UrlOption = None,
) -> None:
    """Print the table and the decision of a sweep that has succeeded, and write its report files."""
    with existing_server(url, read_settings()) as connection:
        show_results(connection, sweep_id)
        write_reports(connection, sweep_id, out)
