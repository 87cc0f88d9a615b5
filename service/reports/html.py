"""The report as one self-contained page: no network, no dependencies, readable without scripts."""

import json

from jinja2 import Environment, PackageLoader, StrictUndefined

from service.domain.results import Interval
from service.reports.bars import ROW, chart
from service.reports.report import Report


def to_html(report: Report) -> bytes:
    """The page. Everything that came with the model is untrusted text and escaped."""
    environment = Environment(
        loader=PackageLoader("service.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": _number, "interval": _interval, "visible": _visible, "count": _count}
    decision = report.decision
    fallback = frozenset(decision.fallback) if decision else frozenset()
    page = environment.get_template("report.html.j2").render(
        report=report,
        decision=decision,
        fallback=fallback,
        chart=chart(report.layers, fallback),
        row=ROW,
        verdict=_verdict(report),
        settings=json.dumps(report.settings.model_dump(mode="json"), indent=1),
        ranked=sorted(report.layers, key=lambda each: (each.rank is None, each.rank or 0)),
    )
    return page.encode()


def _verdict(report: Report) -> tuple[str, str]:
    """A class for its colour, and one sentence."""
    decision = report.decision
    if decision is None or decision.chosen is None:
        return "open", "No decision was made."
    kept = len(decision.fallback)
    layers = "No layer needs" if kept == 0 else "One layer needs" if kept == 1 else f"{kept} layers need"
    if decision.status == "met":
        return "met", f"{layers} to stay in floating point to keep the drop within {decision.max_drop:g}."
    if decision.status == "not_met":
        return "missed", f"No mixed precision keeps the drop within {decision.max_drop:g}."
    return "open", f"{layers} to stay in floating point: their harm is beyond noise. No budget was given."


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}"


def _interval(found: Interval) -> str:
    if found.low is None or found.high is None:
        return found.method
    return f"{found.low:.4g} … {found.high:.4g}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _visible(text: str) -> str:
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
