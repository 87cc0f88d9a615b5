"""``quantsieve run``: from the files to the decision in one command."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.connection import any_server
from service.cli.flow import Order, check_order, run_order
from service.cli.options import SweepOptions, takes_sweep_options
from service.cli.problems import read_settings

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX or .pt2 file, or a model's id.")]
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help="The evaluation set's file, or a dataset's id.")]
UrlOption = Annotated[
    str | None, typer.Option(help="The server.  [default: QUANTSIEVE_URL, else the one that runs on the data folder]")
]


@takes_sweep_options
def run(
    options: SweepOptions,
    *,
    model: ModelArgument,
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="Folder for the report files.")] = Path("quantsieve-out"),
    url: UrlOption = None,
) -> None:
    """Find the layers that int8 hurts, and the shortest list to keep in floating point.

    Talks to the configured server, else starts one on this machine for the run.
    """
    order = Order(model, data, options)
    check_order(order)
    with any_server(url, read_settings()) as connection:
        status = run_order(connection, order, out)
    raise typer.Exit(status)
