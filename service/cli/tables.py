"""The layer table and the decision, as they are printed. Layer names are untrusted text: never markup."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.domain.results import Decision, Interval, LayerResult, VerifiedVariant

DIGITS = 4
NOTHING = "–"


def show_layers(console: Console, rows: Sequence[LayerResult], *, metric: str) -> None:
    """Print one line per layer, the most sensitive first; layers without a rank come last, with the reason."""
    # no frame: with an interval in each row, 80 columns are just enough
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("rank", justify="right")
    table.add_column("layer", overflow="fold")
    table.add_column("op")
    table.add_column("drop [95 % interval]", justify="right", min_width=24)
    table.add_column("KL", justify="right")
    table.add_column("significant")
    for row in sorted(rows, key=_by_rank):
        table.add_row(*_cells(row))
    console.print(Text(f"\nLayers by sensitivity ({metric})\n", "bold"))
    console.print(table)


def _by_rank(row: LayerResult) -> tuple[bool, int]:
    return (row.rank is None, row.rank or 0)


def _cells(row: LayerResult) -> list[Text]:
    name, op = Text(row.layer.name), Text(row.layer.op.value)
    if row.score is None:
        reason = f"{row.state}: {row.reason}" if row.reason else row.state
        return [Text(NOTHING), name, op, Text(reason, "yellow"), Text(NOTHING), Text(NOTHING)]
    kl = row.score.measures.get("kl")
    significant = {True: Text("yes", "red"), False: Text("no"), None: Text(NOTHING)}[row.significant]
    return [
        Text(NOTHING if row.rank is None else str(row.rank)),
        name,
        op,
        Text(number_with_interval(row.score.drop)),
        Text(NOTHING if kl is None or kl.value is None else f"{kl.value:.3g}"),
        significant,
    ]


def number_with_interval(interval: Interval) -> str:
    """Such as ``0.0120 [0.0040, 0.0200]``; why there is none where there is none."""
    if interval.value is None:
        return f"not defined: {interval.method}"
    shown = _number(interval.value)
    if interval.low is None or interval.high is None:
        return shown
    return f"{shown} [{_number(interval.low)}, {_number(interval.high)}]"


def _number(value: float) -> str:
    return f"{value:.{DIGITS}f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"


HEADINGS = {
    "met": ("The budget is met", "bold green"),
    "not_met": ("No list meets the budget", "bold red"),
    "undecidable": ("These samples cannot tell whether the budget is met", "bold yellow"),
    "no_budget": ("No budget was given", "bold"),
}


def show_decision(console: Console, decision: Decision) -> None:
    """Print which layers fall back, and the drop that was measured with them."""
    heading, style = HEADINGS[decision.status]
    console.print(Text(f"\n{heading}", style))
    names = decision.fallback_names
    console.print(
        Text(f"Fallback layers ({len(names)}): {', '.join(names) if names else 'none, all layers can be int8'}")
    )
    if decision.chosen is not None:
        console.print(Text(_verified(decision.chosen, decision)))
        for line in _weighed(decision.chosen, decision):
            console.print(Text(line))
    if decision.samples_needed is not None:
        console.print(Text(f"About {decision.samples_needed:,} samples in all would tell (an estimate)"))
    if decision.explanation:
        console.print(Text(decision.explanation))


def _verified(chosen: VerifiedVariant, decision: Decision) -> str:
    drop = chosen.score.drop
    line = f"Verified drop: {number_with_interval(drop)}, measured on {drop.samples} samples ({drop.method})"
    return line if decision.max_drop is None else f"{line}; budget {decision.max_drop:g}"


def _weighed(chosen: VerifiedVariant, decision: Decision) -> list[str]:
    found = []
    if decision.confidence is not None:
        found.append(f"Confidence: {100 * decision.confidence:g} %, on samples that the choice did not see")
    if chosen.predicted is not None:
        drop = chosen.predicted
        found.append(f"Predicted drop (an estimate): {_number(drop.value)} [{_number(drop.low)}, {_number(drop.high)}]")
    if chosen.cost is not None and decision.cost is not None:
        found.append(f"Cost ({decision.cost}): {chosen.cost:g}")
    return found
