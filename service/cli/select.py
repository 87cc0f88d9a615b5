"""``quantsieve sweep select``: another budget, cost or pins, answered from what a sweep has measured, or measured."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from service.cli.connection import existing_server
from service.cli.options import validated
from service.cli.problems import EXIT_FAILED, read_settings, say_error, stderr, stdout
from service.cli.run import UrlOption
from service.cli.status import time_left
from service.cli.tables import number_with_interval, show_decision
from service.client import Document
from service.domain.costs import CostName
from service.domain.selections import Selected, SelectionQuestion
from service.domain.settings import SelectionAlgorithm
from service.domain.states import SelectionState

HEADINGS = {
    "predicted_met": "The budget is thought to be met (an estimate, nothing of it is measured)",
    "predicted_not_met": "No list is thought to meet the budget (an estimate, nothing of it is measured)",
    "not_predictable": "Nothing can be predicted",
}


def select(
    sweep_id: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep that has its decision.")],
    *,
    max_drop: Annotated[float, typer.Option(help="The budget: how far the metric may drop, e.g. 0.005.")],
    relative: Annotated[bool, typer.Option("--relative", help="The budget is a share of the fp32 value.")] = False,
    cost: Annotated[CostName | None, typer.Option(help="What is to be kept small.")] = None,
    algorithm: Annotated[SelectionAlgorithm | None, typer.Option(help="How lists are proposed.")] = None,
    always_int8: Annotated[list[str] | None, typer.Option(help="Layers (pattern) that are int8; repeatable.")] = None,
    never_int8: Annotated[list[str] | None, typer.Option(help="Layers (pattern) that are not; repeatable.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Measure an estimate until it is a decision.")] = False,
    url: UrlOption = None,
) -> None:
    """Ask a decided sweep another question; its own decision stays as it is."""
    given = {"cost": cost, "algorithm": algorithm, "always_int8": always_int8, "never_int8": never_int8}
    document: dict[str, Any] = {
        "selection": {name: value for name, value in given.items() if value},
        "budget": {"max_drop": max_drop, "relative": relative},
        "verify": verify,
    }
    question = validated(SelectionQuestion, document)
    with existing_server(url, read_settings()) as connection, stderr().status("") as line:

        def report(selection: Document) -> None:
            progress = selection["progress"]
            share = "" if progress is None else f"{progress['fraction']:.0%}  {time_left(selection['eta_seconds'])}"
            line.update(Text(f"{selection['state']}  {share}".rstrip()))

        ended = connection.client.wait_selected(connection.client.select(sweep_id, question), report)
    show_selected(stdout(), Selected.model_validate(ended["result"]))
    if ended["state"] in (SelectionState.FAILED, SelectionState.CANCELLED):
        why = f": {ended['problem']['message']}" if ended["problem"] else ""
        say_error(f"selection {ended['id']} {ended['state']}{why}; what stands above is an estimate")
        raise typer.Exit(EXIT_FAILED)


def show_selected(console: Console, found: Selected) -> None:
    """Print the decision, or the estimate that says that it is one."""
    if found.decision is not None:
        show_decision(console, found.decision)
    else:
        console.print(Text(f"\n{HEADINGS[found.status]}", "bold yellow"))
        names = ", ".join(found.fallback_names) if found.fallback_names else "none, all layers can be int8"
        console.print(Text(f"Fallback layers ({len(found.fallback_names)}): {names}"))
        console.print(Text(found.explanation))
    if found.all_int8 is not None:
        console.print(Text(f"All layers in int8: drop {number_with_interval(found.all_int8.drop)}"))
    if found.fp32 is not None:
        console.print(Text(f"All in floating point: {number_with_interval(found.fp32)}"))
    for note in found.notes:
        console.print(Text(f"Note: {note}"))
