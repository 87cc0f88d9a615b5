"""One sweep from the files to the printed decision. Used by ``run``, by the ``sweep`` commands and by the demo."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.text import Text

from service.cli.connection import Connection
from service.cli.options import SweepOptions
from service.cli.problems import EXIT_FAILED, EXIT_INTERRUPTED, say_error, stderr, stdout
from service.cli.progress import shown_progress
from service.cli.status import SweepStatus
from service.cli.tables import show_decision, show_layers
from service.domain.errors import InvalidInput
from service.domain.results import Decision, LayerResult
from service.domain.settings import Preprocessing
from service.domain.states import SweepState


@dataclass(frozen=True)
class Order:
    """What to sweep. ``model`` and ``data`` (and what calibrates): a file's path, or the id of a resource."""

    model: str
    data: str
    options: SweepOptions


def check_order(order: Order) -> None:
    """Raise InvalidInput for what can be seen without a server."""
    order.options.check()
    for name, given in (
        ("MODEL", order.model),
        ("DATA", order.data),
        ("--calibration-data", order.options.calibration_data),
        ("--calibration-cache", order.options.calibration_cache),
    ):
        if given is not None and not _is_id(given) and not Path(given).is_file():
            raise InvalidInput(f"{name}: there is no file {given}", field=name)


def _is_id(given: str) -> bool:
    return given.startswith(("mdl_", "dat_", "cal_")) and not Path(given).exists()


def submit(connection: Connection, order: Order) -> SweepStatus:
    """Upload what is not there yet, and create the sweep."""
    preprocessing = order.options.parsed_preprocessing()
    model = _model_id(connection, order.model)
    dataset = _dataset_id(connection, order.data, preprocessing)
    calibration = order.options.calibration_data
    calibration_id = None if calibration is None else _dataset_id(connection, calibration, preprocessing)
    cache = order.options.calibration_cache
    cache_id = None if cache is None else _cache_id(connection, cache)
    settings = order.options.settings(model=model, dataset=dataset, calibration=calibration_id, cache=cache_id)
    return SweepStatus.of(connection.client.create_sweep(settings))


def _model_id(connection: Connection, given: str) -> str:
    if _is_id(given):
        return given
    with stderr().status(Text(f"uploading {given}")):
        return str(connection.client.upload_model(Path(given), Path(given).name)["id"])


def _dataset_id(connection: Connection, given: str, preprocessing: Preprocessing | None) -> str:
    if _is_id(given):
        return given
    with stderr().status(Text(f"uploading {given}")):
        return str(connection.client.upload_dataset(Path(given), Path(given).name, preprocessing)["id"])


def _cache_id(connection: Connection, given: str) -> str:
    if _is_id(given):
        return given
    return str(connection.client.upload_calibration(Path(given), Path(given).name)["id"])


def follow(connection: Connection, sweep_id: str) -> int:
    """Show progress until the sweep has ended; the exit status. Ctrl-C offers to cancel it."""
    try:
        with shown_progress(stderr(), connection.check_worker) as report:
            ended = SweepStatus.of(connection.client.wait(sweep_id, on_progress=report))
    except KeyboardInterrupt:
        _interrupted(connection, sweep_id)
        return EXIT_INTERRUPTED
    if ended.state is SweepState.SUCCEEDED:
        return 0
    say_error(f"sweep {sweep_id} {ended.state}" + (f": {ended.problem}" if ended.problem else ""))
    return EXIT_FAILED


def _interrupted(connection: Connection, sweep_id: str) -> None:
    console = stderr()
    own = connection.server is not None
    cancel = typer.confirm("\nCancel the sweep?", default=own, err=True) if sys.stdin.isatty() else own
    if cancel:
        connection.client.cancel(sweep_id)
        console.print(Text(f"sweep {sweep_id} is cancelled"))
    elif own:
        console.print(Text(f"sweep {sweep_id} goes on with the next server on this data folder"))
    else:
        console.print(Text(f"sweep {sweep_id} goes on; wait for it with: quantsieve sweep wait {sweep_id}"))


def show_results(connection: Connection, sweep_id: str) -> None:
    """Print the layer table and the decision on standard output."""
    console = stdout()
    sweep = SweepStatus.of(connection.client.sweep(sweep_id))
    rows = [LayerResult.model_validate(each) for each in connection.client.layers(sweep_id)["layers"]]
    show_layers(console, rows, metric=sweep.metric)
    report = json.loads(connection.client.report(sweep_id, "json"))
    show_decision(console, Decision.model_validate(report["decision"]))
    say_warnings(sweep)


def say_warnings(sweep: SweepStatus) -> None:
    """Print what the service warns of."""
    for warning in sweep.warnings:
        stderr().print(Text.assemble(("warning: ", "yellow"), warning))


def write_reports(connection: Connection, sweep_id: str, out: Path) -> None:
    """Write the sweep's files into ``out``, and say where."""
    client = connection.client
    # whatever server this is, it names files in ``out`` and nowhere else
    names = [name for name in client.artifacts(sweep_id) if name == Path(name).name]
    contents = {name: client.artifact(sweep_id, name) for name in names}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (out / name).write_bytes(content)
    except OSError as error:
        raise InvalidInput(f"--out: cannot write into {out}: {error.strerror}", field="--out") from None
    console = stdout()
    console.print(Text("\nWritten:"))
    for name in contents:
        console.print(Text(f"  {(out / name).absolute()}"), soft_wrap=True)


def run_order(connection: Connection, order: Order, out: Path) -> int:
    """Upload, sweep with progress, print and write the results; the exit status."""
    sweep = submit(connection, order)
    stderr().print(Text(f"sweep {sweep.id} at {connection.url}"))
    if connection.server is None:  # our own worker is still starting: no warning is due that there is none
        say_warnings(sweep)
    status = follow(connection, sweep.id)
    if status == 0:
        show_results(connection, sweep.id)
        write_reports(connection, sweep.id, out)
    return status
