"""What a sweep found: the layer table (partial while it runs), the reports, the fallback layers, the files."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Response
from pydantic import BaseModel

from service.api.deps import InServices, ProjectServices
from service.api.downloads import ArtifactView, listed, sent
from service.api.problems import documented
from service.api.streamed import FILE, Part
from service.api.sweeps import SweepId
from service.domain.errors import Conflict, NotFound
from service.domain.results import LayerResult, VariantScore
from service.domain.states import SweepState
from service.reports.layers_csv import to_csv
from service.store import sweeps
from service.store.tables import ArtifactRow, SweepRow

router = APIRouter(prefix="/v1/sweeps/{sweep_id}", tags=["results"])

Accept = Annotated[str, Header(description="`application/json` (default) or `text/csv`.")]


class LayerTable(BaseModel):
    """The layer table; ``complete`` False: the numbers are those of the shards that are measured so far."""

    sweep: str
    state: SweepState
    complete: bool
    layers: list[LayerResult]
    scores: list[VariantScore]


class ArtifactList(BaseModel):
    """The files of one sweep, by name."""

    items: list[ArtifactView]


@router.get(
    "/layers",
    response_model=LayerTable,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}, **documented(404, 409)},
)
def get_layers(services: InServices, sweep_id: SweepId, accept: Accept = "*/*") -> LayerTable | Response:
    """The layer table, as far as it is measured; as CSV where the Accept header prefers text/csv."""
    with services.database.read() as session:
        sweep = sweeps.get(session, sweep_id)
        layers, scores = sweeps.layers(session, sweep), sweeps.scores(session, sweep_id)
    if not layers:
        raise ended_or(sweep, Conflict("the layers are not known before planning is done", code="layers-not-ready"))
    if prefers_csv(accept):
        table = to_csv(layers, sweeps.costs(sweep))
        return Response(table, media_type="text/csv; charset=utf-8", headers={"Vary": "Accept"})
    state = SweepState(sweep.state)
    return LayerTable(sweep=sweep.id, state=state, complete=state is SweepState.SUCCEEDED, layers=layers, scores=scores)


@router.get("/report.json", response_class=Response, responses=FILE)
def get_report_json(services: InServices, sweep_id: SweepId, part: Part) -> Response:
    """The report as JSON."""
    return sent(services, _artifact(services, sweep_id, "report.json"), part)


@router.get("/report.html", response_class=Response, responses=FILE)
def get_report_html(services: InServices, sweep_id: SweepId, part: Part) -> Response:
    """The report as one page that needs no network."""
    return sent(services, _artifact(services, sweep_id, "report.html"), part)


@router.get("/fallback-layers", response_class=Response, responses=FILE)
def get_fallback_layers(services: InServices, sweep_id: SweepId, part: Part) -> Response:
    """The layers to keep in higher precision, and the drop that was measured with them."""
    return sent(services, _artifact(services, sweep_id, "fallback_layers.json"), part)


@router.get("/artifacts", responses=documented(404, 409))
def list_artifacts(services: InServices, sweep_id: SweepId) -> ArtifactList:
    """The files to download."""
    with services.database.read() as session:
        _ready(sweeps.get(session, sweep_id))
        rows = sweeps.artifacts(session, sweep_id)
    return ArtifactList(items=listed(rows, f"/v1/sweeps/{sweep_id}/artifacts"))


@router.get("/artifacts/{name}", response_class=Response, responses=FILE)
def get_artifact(
    services: InServices, sweep_id: SweepId, name: Annotated[str, Path(max_length=200)], part: Part
) -> Response:
    """One file, as a download."""
    return sent(services, _artifact(services, sweep_id, name), part, download=True)


def _artifact(services: ProjectServices, sweep_id: str, name: str) -> ArtifactRow:
    with services.database.read() as session:
        _ready(sweeps.get(session, sweep_id))
        rows = sweeps.artifacts(session, sweep_id)
    for row in rows:
        if row.name == name:
            return row
    raise NotFound(f"sweep {sweep_id} has no file {name!r}", code="artifact-not-found")


def _ready(sweep: SweepRow) -> None:
    if sweep.state == SweepState.SUCCEEDED:
        return
    waiting = f"sweep {sweep.id} is {sweep.state} (phase {sweep.phase}); its report is not ready"
    raise ended_or(sweep, Conflict(waiting, code="report-not-ready"))


def ended_or(sweep: SweepRow, waiting: Conflict) -> Conflict:
    """The problem to show: why the sweep gave nothing where it has ended, else that it is not ready."""
    if sweep.state == SweepState.FAILED:
        return Conflict(f"sweep {sweep.id} failed: {sweep.problem}", code="sweep-failed")
    if sweep.state == SweepState.CANCELLED:
        return Conflict(f"sweep {sweep.id} was cancelled", code="sweep-cancelled")
    return waiting


def prefers_csv(accept: str) -> bool:
    """Whether an Accept header ranks text/csv above application/json."""
    quality = {"text/csv": 0.0, "application/json": 0.0}
    for part in accept.split(","):
        kind, _, parameters = part.partition(";")
        value = parameters.partition("q=")[2].strip() or "1"
        try:
            weight = float(value)
        except ValueError:
            weight = 0.0
        kind = kind.strip().lower()
        if kind in quality:
            quality[kind] = max(quality[kind], weight)
    return quality["text/csv"] > quality["application/json"]
