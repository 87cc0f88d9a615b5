"""The report as one self-contained page: no network, readable without scripts, every foreign text escaped."""

import json
import shlex
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from service.domain.layers import ALL_INT8, CONTROLS, FP32, FP32_REPEATED
from service.domain.results import Interval, VariantScore
from service.domain.settings import SweepMode
from service.reports.cost_quantity import CostQuantity
from service.reports.cost_section import CostSection, cost_section
from service.reports.decision_path import Step, draw_path, steps_of
from service.reports.layer_rows import (
    MEASURE_TITLES,
    LayerRow,
    divergence_measure,
    layer_rows,
    measured_or_estimated,
)
from service.reports.pareto_plot import plot_of
from service.reports.pareto_points import Pareto
from service.reports.quantity import Quantity, counted, worsening
from service.reports.ranking_chart import Bar, BarChart
from service.reports.report import Report
from service.reports.verdict import Verdict, verdict_of
from service.reports.visible_text import visible

MOST_BARS = 40
# what the command calls: the reader sets the variable to the service's address
ADDRESS = "$QUANTSIEVE_URL"
CONTROL_TITLES = {FP32: "fp32", FP32_REPEATED: "fp32, repeated", ALL_INT8: "All int8"}


@dataclass(frozen=True)
class Tile:
    """One variant of the header: its metric, and its drop where it has one."""

    title: str
    kind: str
    value: str
    unit: str
    interval: str
    drop: str


@dataclass(frozen=True)
class FileRow:
    """The exported file in one arithmetic, or the variant that it stands beside. ``reason``: why there is no number."""

    title: str
    value: str
    interval: str
    within: bool | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Page:
    """Everything that the template shows besides the report itself. ``timed``: the precisions with latencies."""

    verdict: Verdict
    tiles: tuple[Tile, ...]
    chart: Markup | None
    divergence_chart: Markup | None
    divergence: str | None
    estimated: bool
    meaning: str
    worsening: str
    left_out: int
    rows: tuple[LayerRow, ...]
    steps: tuple[Step, ...]
    path: Markup | None
    pareto: Pareto | None
    pareto_plot: Markup | None
    cost: CostQuantity | None
    quantity: Quantity
    fallback: tuple[str, ...]
    costs: CostSection | None
    timed: tuple[str, ...]
    folding: str | None
    exported: tuple[FileRow, ...]
    settings: str
    curl: str


def to_html(report: Report) -> bytes:
    """The page as UTF-8; the same bytes for the same report. Partial reports show what there is."""
    return _template().render(report=report, page=_page(report)).encode()


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("service.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "counted": counted}
    return environment.get_template("page.html.j2")


def _page(report: Report) -> Page:
    rows, decision, quantity = layer_rows(report), report.decision, Quantity.drop(report.metric)
    charted = [row for row in rows if row.result.score and row.result.score.drop.value is not None]
    measure, estimated = divergence_measure(report), any(row.result.estimate for row in rows)
    steps = steps_of(decision, report.controls.get(ALL_INT8)) if decision else ()
    pareto = Pareto.of(report)
    plot = plot_of(pareto, quantity) if pareto else None
    return Page(
        verdict=verdict_of(report),
        tiles=_tiles(report),
        chart=_ranking(report, charted[:MOST_BARS]),
        divergence_chart=_divergence(list((rows if estimated else charted)[:MOST_BARS]), measure) if measure else None,
        estimated=estimated,
        divergence=MEASURE_TITLES[measure] if measure else None,
        meaning=_meaning(report),
        worsening=worsening(report.metric).capitalize(),
        left_out=max(len(charted) - MOST_BARS, 0),
        rows=rows,
        steps=steps,
        path=draw_path(steps, decision.max_drop, measure=report.metric.name, quantity=quantity)
        if decision and steps and pareto is None
        else None,
        pareto=pareto,
        pareto_plot=plot.draw() if plot else None,
        cost=plot.cost if plot else None,
        quantity=quantity,
        fallback=decision.fallback_names if decision else (),
        costs=cost_section(report.costs, report.layers),
        timed=tuple(each.precision.value for each in report.costs.timed) if report.costs else (),
        folding=_folding(report),
        exported=_exported(report),
        settings=json.dumps(report.settings.model_dump(mode="json"), indent=2, ensure_ascii=True),
        curl=curl_of(report),
    )


def curl_of(report: Report) -> str:
    """The shell command that asks for the same sweep again. ASCII only: foreign text shows as it is sent."""
    body = json.dumps(report.settings.model_dump(mode="json", exclude_defaults=True), ensure_ascii=True)
    return f'curl -sS "{ADDRESS}/v1/sweeps" \\\n  -H "Content-Type: application/json" \\\n  -d {shlex.quote(body)}'


def _meaning(report: Report) -> str:
    if report.settings.mode is SweepMode.ONE_ON:
        return f"How much {report.metric.name} worsens when this layer alone runs in int8."
    return f"How much {report.metric.name} recovers when this layer alone leaves int8."


def _folding(report: Report) -> str | None:
    found = report.model.folding_difference
    if found is None:
        return None
    if found.relative_rms is None or found.max_abs is None:
        return f"what that changes was not measured: {found.reason}"
    return (
        f"fp32 outputs differ by {found.relative_rms:.1e} of their size in root mean square, by {found.max_abs:.1e} at "
        f"most, on {counted(found.samples, 'sample')}"
    )


def _exported(report: Report) -> tuple[FileRow, ...]:
    check, level = report.exported, Quantity.level(report.metric)
    if check is None:
        return ()

    def row(title: str, found: Interval, within: bool | None = None) -> FileRow:
        return FileRow(title, level.with_unit(found.value), level.range(found), within)

    rows = [row("Verified variant", check.variant)]
    for name, title, score in (
        ("simulated", "File, Q/DQ as they stand", check.simulated),
        ("fused", "File, the runtime's own kernels", check.fused),
    ):
        if score is None:
            rows.append(FileRow(title, "–", "–", reason=check.failures.get(name, "not measured")))
        else:
            rows.append(row(title, score.metric, score.within))
    return tuple(rows)


def _tiles(report: Report) -> tuple[Tile, ...]:
    tiles = [
        _tile(report, CONTROL_TITLES[name], name.replace("_", "-"), report.controls[name])
        for name in CONTROLS
        if name in report.controls
    ]
    if report.decision and report.decision.chosen:
        kept = counted(len(report.decision.fallback), "layer")
        tiles.append(_tile(report, f"Mixed, {kept} in float", "mixed", report.decision.chosen.score))
    return tuple(tiles)


def _tile(report: Report, title: str, kind: str, score: VariantScore) -> Tile:
    level, drop = Quantity.level(report.metric), Quantity.drop(report.metric)
    value = score.metric.value
    told = "" if kind == "fp32" or score.drop.value is None else f"{worsening(report.metric)} {drop.brief(score.drop)}"
    interval = score.metric.method if value is None else level.range(score.metric)
    return Tile(title, kind, level.number(value), level.unit if value is not None else "", interval, told)


def _ranking(report: Report, rows: list[LayerRow]) -> Markup | None:
    bars = [_bar(row, row.result.score.drop) for row in rows if row.result.score]
    if not bars:
        return None
    title = f"Sensitivity of the {len(bars)} most sensitive layers, with 95 % intervals; the table holds the numbers"
    return BarChart("ranking", title, report.metric.name, Quantity.drop(report.metric)).draw(bars)


def _divergence(rows: list[LayerRow], measure: str) -> Markup | None:
    found = [(row, measured_or_estimated(row.result, measure)) for row in rows]
    bars = [_bar(row, interval) for row, interval in found if interval is not None and interval.value is not None]
    if not bars:
        return None
    title = f"{MEASURE_TITLES[measure]} of the output against fp32 for the same layers, with 95 % intervals"
    return BarChart("divergence", title, measure, Quantity()).draw(bars)


def _bar(row: LayerRow, found: Interval) -> Bar:
    result = row.result
    return Bar(result.rank, result.layer.name, found, bool(result.significant), "fallback" in row.flags)
